"""Sliding windows: our pattern over the layers ⇄ their list with a word for each layer."""

from __future__ import annotations

from typing import Any

from pellucid.errors import CheckpointError
from pellucid.model import DecoderConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def layer_types(config: DecoderConfig) -> list[str]:
    windows = map(config.attention.window_of, range(config.num_layers))
    return [GLOBAL if window is None else LOCAL for window in windows]


def window_from_hf(types: Any, window: int | None, num_layers: int) -> dict[str, Any]:
    """Our `attention.window` and the shortest `window_pattern`, as a tree. Raises CheckpointError.

    Their window counts keys as ours does, the query's own included.
    """
    is_list = isinstance(types, list) and all(word in (LOCAL, GLOBAL) for word in types)
    if not is_list or len(types) != num_layers:
        raise CheckpointError(
            f"config.json: layer_types: {num_layers} words (num_hidden_layers) are needed, each {LOCAL!r} or "
            f"{GLOBAL!r}, not {types!r}"
        )
    if LOCAL not in types:
        return {"window": None, "window_pattern": "L"}
    if window is None:
        raise CheckpointError(
            f"config.json: sliding_window: a number is needed, because layer_types has {LOCAL!r}"
        )
    letters = "".join("L" if word == LOCAL else "G" for word in types)
    length = next(n for n in range(1, num_layers + 1) if (letters[:n] * num_layers)[:num_layers] == letters)
    return {"window": window, "window_pattern": letters[:length]}
