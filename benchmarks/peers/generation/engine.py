"""What the worker asks of every library: open a model once, then write greedily, as often as it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Ids = list[int]


class Engine(Protocol):
    """A model that is loaded.

    A module beside this one has `open_engine(files, threads, length, **setting)` → Engine, for up to `length` tokens
    a row, and, where its library reads a format of its own, `convert(files, **setting)`, which writes that from the
    Hugging Face directory or the checkpoint in `files` (see generation/model.py).
    """

    weight_bytes: int
    """Of all matrices that one token is multiplied by, in the format in which they lie in memory."""

    def write(self, prompts: list[Ids], count: int, mark: Callable[[], None]) -> list[Ids]:
        """`count` new ids of every row, the most probable one each time, whatever ends a text.

        mark: called once a step, as soon as its ids are known as integers.
        """
        ...


def make(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file or directory written, aside first: once, since other rows' processes may be reading it."""
    if path.exists():
        return
    aside = path.with_name(f"unfinished-{path.name}")
    if aside.is_dir():
        shutil.rmtree(aside)
    write(aside)
    aside.rename(path)
