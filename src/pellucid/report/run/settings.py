"""Configs side by side: every key once, and those in which runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pellucid.config import Tree

LEFT_OUT = "–"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted keys and written values."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(cast(Tree, value), f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _written(value)
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_written, cast(list[Any], value)))}]"
    return repr(value) if value == "" or (isinstance(value, str) and not value.strip()) else str(value)


def differing(trees: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """By dotted key: the value of each tree, where they are not all the same."""
    every = [flat(tree) for tree in trees]
    keys = dict.fromkeys(key for tree in every for key in tree)
    rows = {key: tuple(tree.get(key, LEFT_OUT) for tree in every) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}
