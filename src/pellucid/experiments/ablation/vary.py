"""`--vary key=a,b` → every combination of the values, each with a name that a directory can have."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pellucid.errors import ConfigError

PRESET = "preset"
"""The key that varies the preset itself: --vary preset=sota-16m,sota-16m-classic."""


def parse_vary(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of each key, as they were written. Raises ConfigError for words that name no comparison.

    Commas inside brackets, braces and quotes belong to a value: `key=[1, 2],[3]` has two.
    """
    if not words:
        raise ConfigError(
            "nothing varies; give --vary KEY=A,B, e.g. --vary model.norm.kind=rmsnorm,layernorm"
        )
    vary: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, _, values = word.partition("=")
        found = _split(values)
        if not key or len(found) < 2:
            raise ConfigError(f"--vary {word}: give a key and at least two values, as in KEY=A,B")
        if key in vary:
            raise ConfigError(f"--vary {key}: given twice; put all its values behind one")
        if twice := [value for value, count in Counter(found).items() if count > 1]:
            raise ConfigError(f"--vary {word}: {twice[0]!r} is there twice")
        vary[key] = found
    return vary


def combinations(vary: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination, the last key changing fastest; the first one has each key's first value."""
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


def cell_names(cells: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each combination: its values, with the key's last word where the value alone says little."""
    short = ["-".join(_part(key, value) for key, value in cell.items()) for cell in cells]
    if len(set(short)) == len(cells):
        return short
    return [f"{number:02}-{name}" for number, name in enumerate(short)]


def _part(key: str, value: str) -> str:
    if key == PRESET:
        named = Path(value).stem if value.endswith(".toml") else value
    else:
        named = value if key.endswith("kind") else f"{key.rpartition('.')[2]}-{value or 'none'}"
    return re.sub(r"[^\w.]+", "-", named).strip("-.")


def _split(text: str) -> tuple[str, ...]:
    """The parts between commas that stand outside brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return tuple(part.strip() for part in parts)
