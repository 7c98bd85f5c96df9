"""RoPE's base and scaling, as transformers 5 (`rope_parameters`) and 4 (`rope_theta`, `rope_scaling`) write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pellucid.errors import CheckpointError
from pellucid.model import ModelConfig
from pellucid.model.positions import RotaryPositionConfig

WORDS = {
    "factor": "factor",
    "original_max_seq_len": "original_max_position_embeddings",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
}
"""Our words for a scaling's numbers → theirs."""

KINDS = {"none": "default", "linear": "linear", "yarn": "yarn", "llama3": "llama3"}
"""Our kinds of scaling → their `rope_type`. Their 'dynamic' depends on the length, our 'ntk' does not."""


def rope_faults(config: ModelConfig) -> list[str]:
    """What their RoPE cannot express; nothing where another position scheme stands."""
    position, size = config.position, config.head_size
    if not isinstance(position, RotaryPositionConfig) or position.scaling.kind != "ntk":
        return []
    same = position.theta * position.scaling.factor ** (size / (size - 2))
    return [
        "position.scaling.kind: must be 'none', 'linear', 'yarn' or 'llama3', not 'ntk'; "
        f"position.theta {same!r} without scaling gives the same frequencies"
    ]


def rope_to_hf(position: RotaryPositionConfig) -> dict[str, Any]:
    """The fields of config.json, in both versions' words."""
    numbers = {WORDS[name]: value for name, value in position.scaling if name != "kind" and value is not None}
    scaled = {"rope_type": KINDS[position.scaling.kind], **numbers}
    fields = {"rope_theta": position.theta, "rope_parameters": {**scaled, "rope_theta": position.theta}}
    return fields if position.scaling.kind == "none" else {**fields, "rope_scaling": scaled}


def rope_from_hf(theirs: Mapping[str, Any], default_theta: float = 10_000.0) -> dict[str, Any]:
    """Our `position`, as a tree. Raises CheckpointError for what is not built here or contradicts itself."""
    thetas = [theirs["rope_theta"]] if theirs.get("rope_theta") is not None else []
    scalings: list[dict[str, Any]] = []
    for field in ("rope_parameters", "rope_scaling"):
        rope: Any = theirs.get(field) or {}
        if not isinstance(rope, Mapping):
            raise CheckpointError(f"config.json: {field}: a table is needed, not {rope!r}")
        if rope.get("rope_theta") is not None:
            thetas.append(rope["rope_theta"])
        if any(key not in ("rope_theta", "partial_rotary_factor") for key in rope):
            scalings.append(_scaling_from_hf(field, rope, theirs))
        if rope.get("partial_rotary_factor", 1) != 1:
            raise CheckpointError(
                f"config.json: {field}: a partial_rotary_factor other than 1 cannot be read here"
            )
    for name, values in {"rope_theta": thetas, "rope_parameters, rope_scaling": scalings}.items():
        if any(value != values[0] for value in values):
            raise CheckpointError(
                f"config.json: {name}: two values that differ: {values[0]} and {values[-1]}; keep one of them"
            )
    return {
        "kind": "rope",
        "theta": thetas[0] if thetas else default_theta,
        "scaling": scalings[0] if scalings else {"kind": "none"},
    }


def _scaling_from_hf(field: str, rope: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    word = rope.get("rope_type", rope.get("type", "default"))
    ours = {theirs_: ours_ for ours_, theirs_ in KINDS.items()}
    if word not in ours or any(isinstance(value, Mapping) for value in rope.values()):
        what = f"rope_type {word!r}" if word not in ours else "one RoPE for each type of layer"
        raise CheckpointError(
            f"config.json: {field}: {what} cannot be read here, only {', '.join(map(repr, ours))}"
        )
    if rope.get("truncate", True) is not True:
        raise CheckpointError(f"config.json: {field}: yarn without truncate cannot be read here")
    numbers = _FIELDS[word]
    tree = {name: rope[WORDS[name]] for name in numbers if rope.get(WORDS[name]) is not None}
    if "original_max_seq_len" in numbers:  # one beside the table comes first, as in transformers
        written = theirs.get("original_max_position_embeddings") or tree.get("original_max_seq_len")
        tree["original_max_seq_len"] = written or theirs.get("max_position_embeddings")
    scale, scale_all, factor = rope.get("mscale"), rope.get("mscale_all_dim"), tree.get("factor")
    if word == "yarn" and "attention_factor" not in tree and scale and scale_all and factor:
        log = math.log(factor)
        tree["attention_factor"] = (0.1 * scale * log + 1) / (0.1 * scale_all * log + 1)
    return {"kind": ours[word], **tree}


_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor", "original_max_seq_len", "beta_fast", "beta_slow", "attention_factor"),
    "llama3": ("factor", "low_frequency_factor", "high_frequency_factor", "original_max_seq_len"),
}
"""The numbers that a `rope_type` has; transformers ignores others, and so does this file."""
