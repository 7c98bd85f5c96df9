"""Which family of the Hugging Face ecosystem a model is of: the one whose config can say all that ours says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor

from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import gemma2, gpt2, llama, mixtral, qwen3, t5
from pellucid.model import ModelConfig


class Maps(Protocol):
    """A file of `maps/`: configs and weights in both directions."""

    def config_to_hf(self, config: Any) -> dict[str, Any]: ...
    def config_from_hf(self, theirs: Mapping[str, Any]) -> ModelConfig: ...
    def weights_to_hf(self, weights: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]: ...
    def weights_from_hf(self, weights: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Family:
    name: str
    model_type: str
    """Its word in config.json."""
    kind: str
    """`model.kind` of its members."""
    maps: Maps


FAMILIES = (
    Family("Llama", "llama", "decoder", cast(Maps, llama)),
    Family("GPT-2", "gpt2", "decoder", cast(Maps, gpt2)),
    Family("Qwen3", "qwen3", "decoder", cast(Maps, qwen3)),
    Family("Mixtral", "mixtral", "decoder", cast(Maps, mixtral)),
    Family("Gemma-2", "gemma2", "decoder", cast(Maps, gemma2)),
    Family("T5 v1.1", "t5", "encoder_decoder", cast(Maps, t5)),
)
"""The first that can express a model is taken: the earlier, the more programs read it."""


def find_family(config: ModelConfig) -> Family:
    """The family of a model. Raises ConfigError saying what keeps it out of the nearest one."""
    faults: dict[str, list[str]] = {}
    for family in FAMILIES:
        if family.kind != config.kind:
            continue
        try:
            family.maps.config_to_hf(config)
        except ConfigError as error:
            faults[family.name] = str(error).splitlines()[1:]
        else:
            return family
    nearest = min(faults, key=lambda name: len(faults[name]))
    raise ConfigError(
        f"no family of models that others read ({', '.join(faults)}) can express this one. The nearest is {nearest}, "
        "but for:\n  " + "\n  ".join(faults[nearest]) + "\nTrain a model without that, or keep it here: "
        "--to weights writes a checkpoint that Pellucid reads"
    )


def family_of(theirs: Mapping[str, Any]) -> Family:
    """The family that a config.json names. Raises CheckpointError for one that is not known here."""
    named = theirs.get("model_type")
    for family in FAMILIES:
        if family.model_type == named:
            return family
    known = ", ".join(family.model_type for family in FAMILIES)
    raise CheckpointError(
        f"config.json: model_type: {named!r} is no family that can be read here (these can: {known})"
    )
