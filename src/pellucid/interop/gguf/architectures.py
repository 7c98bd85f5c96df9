"""The architectures of llama.cpp that our families are written as: what they cannot be told, and how their tensors
differ from Hugging Face's. What each reads is in llama.cpp's src/models/, one file an architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.errors import ConfigError
from pellucid.interop.families import Family
from pellucid.interop.gguf.rotary import interleave
from pellucid.interop.maps.fields import attention_has_bias
from pellucid.interop.maps.windows import GLOBAL, LOCAL, layer_types
from pellucid.model import DecoderConfig, ModelConfig

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One that llama.cpp knows."""

    name: str
    faults: Callable[[DecoderConfig], list[str]]
    """What of our config it cannot be told."""
    convert: Callable[[str, Tensor, Tree], Tensor]
    """A tensor of Hugging Face's name, as llama.cpp wants it; the last is their config.json."""


def architecture_of(family: Family, config: ModelConfig) -> Architecture:
    """Raises ConfigError naming what keeps a model of the family out of GGUF."""
    found = ARCHITECTURES.get(family.model_type)
    if found is None or not isinstance(config, DecoderConfig):
        raise ConfigError(
            f"GGUF: models of the {family.name} family are not written (decoders of {', '.join(ARCHITECTURES)} are); "
            "export --to hf instead"
        )
    if faults := found.faults(config):
        raise ConfigError(
            f"GGUF: llama.cpp's {found.name} cannot express this model:\n  "
            + "\n  ".join(faults)
            + "\nExport --to hf "
            "keeps it as it is"
        )
    return found


# What cannot be said ----------------------------------------------------------------------------------


def _yarn_faults(config: DecoderConfig) -> list[str]:
    position = config.position
    if position.kind != "rope" or position.scaling.kind != "yarn":
        return []
    found = {"beta_fast": position.scaling.beta_fast, "beta_slow": position.scaling.beta_slow}
    return [
        f"position.scaling.{name}: must be {wanted:g}, which is fixed there, not {found[name]:g}"
        for name, wanted in {"beta_fast": 32.0, "beta_slow": 1.0}.items()
        if found[name] != wanted
    ]


def _llama3_faults(config: DecoderConfig) -> list[str]:
    if config.position.kind != "rope" or config.position.scaling.kind != "llama3":
        return []
    return ["position.scaling.kind: 'llama3' is read in the llama architecture only"]


def _window_faults(config: DecoderConfig) -> list[str]:
    if LOCAL not in layer_types(config):
        return []
    return [f"attention.window: there is none in this architecture, not {config.attention.window}"]


def _bias_faults(config: DecoderConfig) -> list[str]:
    return ["attention.bias: must be False, not True"] if attention_has_bias(config) else []


def _mixtral_faults(config: DecoderConfig) -> list[str]:
    return _window_faults(config) + _yarn_faults(config)


def _qwen3_faults(config: DecoderConfig) -> list[str]:
    return _window_faults(config) + _bias_faults(config) + _llama3_faults(config) + _yarn_faults(config)


def _gemma2_faults(config: DecoderConfig) -> list[str]:
    attention, layer = config.attention, config.feed_forward
    faults = _bias_faults(config) + _llama3_faults(config) + _yarn_faults(config)
    if attention.softcap is None or config.logit_softcap is None:
        faults.append("attention.softcap, logit_softcap: both are needed")
    types = layer_types(config)
    if attention.window is not None and types != [(LOCAL, GLOBAL)[at % 2] for at in range(len(types))]:
        faults.append(f"attention.window_pattern: must be 'LG', not {attention.window_pattern!r}")
    # Gemma-2 27B, which llama.cpp knows by its 46 layers, divides the scores by another number.
    size = config.d_model // config.num_heads if config.num_layers == 46 else config.head_size
    if abs((attention.scale or config.head_size**-0.5) - size**-0.5) > 1e-12:
        faults.append(f"attention.scale: must be {size**-0.5!r}, 1 / sqrt({size})")
    if not (layer.kind == "geglu" and layer.approximate):
        faults.append("feed_forward.approximate: must be True, not False")
    if not config.tie_embeddings:
        faults.append("tie_embeddings: must be True, not False")
    return faults


def _gpt2_faults(config: DecoderConfig) -> list[str]:
    layer = config.feed_forward
    if layer.kind == "gelu" and layer.approximate:
        return []
    found = "the exact GELU" if layer.kind == "gelu" else repr(layer.kind)
    return [f"feed_forward: must be 'gelu' with approximate = true, not {found}"]


# How tensors differ -----------------------------------------------------------------------------------


def _interleaved(name: str, tensor: Tensor, theirs: Tree) -> Tensor:
    """Rows of queries and keys: llama.cpp's Llama turns neighbours."""
    if ".q_proj." in name:
        return interleave(tensor, theirs["num_attention_heads"])
    if ".k_proj." in name:
        return interleave(tensor, theirs["num_key_value_heads"])
    return tensor


def _gains(name: str, tensor: Tensor, theirs: Tree) -> Tensor:
    """Gemma's gains themselves, where Hugging Face has their distance from 1."""
    del theirs
    return (tensor.double() + 1).to(tensor.dtype) if name.endswith("norm.weight") else tensor


def _upright(name: str, tensor: Tensor, theirs: Tree) -> Tensor:
    """GPT-2's matrices as [out, in]."""
    del theirs
    is_table = name.endswith(("wte.weight", "wpe.weight", "lm_head.weight"))
    return tensor.T if tensor.dim() == 2 and not is_table else tensor


def _as_it_is(name: str, tensor: Tensor, theirs: Tree) -> Tensor:
    del name, theirs
    return tensor


ARCHITECTURES = {
    "llama": Architecture("llama", _yarn_faults, _interleaved),
    "mixtral": Architecture("llama", _mixtral_faults, _interleaved),
    "qwen3": Architecture("qwen3", _qwen3_faults, _as_it_is),
    "gemma2": Architecture("gemma2", _gemma2_faults, _gains),
    "gpt2": Architecture("gpt2", _gpt2_faults, _upright),
}
"""By Hugging Face's `model_type`."""
