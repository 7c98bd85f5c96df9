import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

STORIES = [
    f"Story {number}: the {animal} went home.\n" for number, animal in enumerate(["cat", "dog", "ox"] * 14)
]


@pytest.fixture
def stories() -> list[str]:
    """42 different short texts: enough that a tenth of them is not nothing."""
    return list(STORIES)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes texts as a .jsonl file."""

    def write(texts: Iterable[str], name: str = "stories.jsonl", field: str = "text") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")
        return path

    return write


@pytest.fixture
def pair_lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes pairs as a .jsonl file."""

    def write(
        pairs: Iterable[tuple[str, str]],
        name: str = "pairs.jsonl",
        fields: tuple[str, str] = ("source", "target"),
    ) -> Path:
        path = tmp_path / name
        lines = [json.dumps(dict(zip(fields, pair, strict=True))) + "\n" for pair in pairs]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write
