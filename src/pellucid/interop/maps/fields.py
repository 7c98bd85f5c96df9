"""Configs under other names: what a family is fixed to, what it lacks, and numbers read from a config.json.

Names of our fields are dotted paths, such as `norm.kind`. A family's own file says the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pellucid.errors import CheckpointError, ConfigError
from pellucid.model import ModelConfig

# Ours ------------------------------------------------------------------------------------------------


def require_family(
    family: str, config: ModelConfig, fixed: Mapping[str, Any], more_faults: Iterable[str] = ()
) -> None:
    """Raises ConfigError naming each field of ours that is not as `fixed` says, and `more_faults`.

    A path that the config does not have, because another kind stands there, is named by that kind's own path.
    """
    faults = ["vocab_size: a value is needed"] if config.vocab_size is None else []
    for path, wanted in fixed.items():
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name, wanted)
        if value != wanted:
            faults.append(f"{path}: must be {wanted!r}, not {value!r}")
    if getattr(config, "prompt_mask", None) == "prefix":
        faults.append("prompt_mask: must be left out or 'causal', by which these families read, not 'prefix'")
    if faults := [*faults, *more_faults]:
        raise ConfigError(f"not a model of the {family} family:\n" + "\n".join(faults))


def scale_faults(config: ModelConfig) -> list[str]:
    """For families whose scores are always divided by sqrt(head size)."""
    scale, usual = config.attention.scale, config.head_size**-0.5
    if scale is None or abs(scale - usual) < 1e-12:
        return []
    return [f"attention.scale: must be 1 / sqrt(head size), {usual!r}, not {scale!r}"]


def attention_has_bias(config: ModelConfig) -> bool:
    return config.bias if config.attention.bias is None else config.attention.bias


def inner_width(config: ModelConfig) -> int:
    """F, also where the config leaves it to a rule."""
    with torch.device("meta"):
        layer = config.feed_forward.build(config.d_model, bias=False)
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    return shapes["up" if "up" in shapes else "up.weight"][-2]  # [F, D], or [X, F, D]


def nest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"norm.kind": x} → {"norm": {"kind": x}}."""
    tree: dict[str, Any] = {}
    for path, value in fields.items():
        *tables, key = path.split(".")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = value
    return tree


# Theirs ----------------------------------------------------------------------------------------------

WHERE = "config.json, in this project's words"
"""What stands before a fault that our own config finds in their numbers."""


def require_values(theirs: Mapping[str, Any], model_type: str, wanted: Mapping[str, Any]) -> None:
    """Raises CheckpointError naming the first field that is there and is not the one value that can be read.

    A field that is left out, null or false where false is wanted is taken for its default.
    """
    if theirs.get("model_type") != model_type:
        raise _unreadable("model_type", theirs.get("model_type"), repr(model_type))
    for field, only in wanted.items():
        value = theirs.get(field)
        if value != only and (value or only) and value is not None:
            raise _unreadable(field, value, repr(only))


def choose(theirs: Mapping[str, Any], field: str, default: str, meanings: Mapping[str, Any]) -> Any:
    """What a word of theirs means here. Raises CheckpointError for words without a meaning."""
    word = theirs.get(field, default)
    if not isinstance(word, str) or word not in meanings:
        raise _unreadable(field, word, ", ".join(map(repr, meanings)))
    return meanings[word]


def count(theirs: Mapping[str, Any], field: str) -> int:
    """A number above 0, and not above what a tensor's side can be, that must be there. Raises CheckpointError."""
    value = theirs.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.json: {field}: a whole number above 0 is needed, not {value!r}")
    if value >= 2**31:
        raise CheckpointError(
            f"config.json: {field}: {value} is more than can be built, which is less than 2³¹"
        )
    return value


def _unreadable(field: str, value: Any, readable: str) -> CheckpointError:
    return CheckpointError(f"config.json: {field}: {value!r} cannot be read here, only {readable}")
