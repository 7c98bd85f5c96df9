"""This project: a checkpoint, and the loop that all its generation goes through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from pellucid import checkpoint
from pellucid.model import Transformer
from pellucid.model.decoding import decode
from pellucid.runtime.precision import DTYPES


class Ours(NamedTuple):
    model: Transformer
    weight_bytes: int


def load_ours(directory: Path, dtype: str, quantize: str | None) -> Ours:
    """As `pellucid generate --dtype … --quantize …` has it."""
    if quantize is not None:
        raise SystemExit(f"quantize {quantize}: not in this version")
    model = checkpoint.load(directory).model.to(DTYPES[dtype])
    return Ours(model, sum(p.numel() * p.element_size() for p in model.parameters()))


class Engine:
    def __init__(self, ours: Ours) -> None:
        self._model, self.weight_bytes = ours

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        steps: list[list[int]] = []
        for new in decode(self._model, torch.tensor(prompts), count, lambda logits, _: logits.argmax(dim=-1)):
            steps.append(new.tolist())
            mark()
        return [list(row) for row in zip(*steps, strict=True)]


def open_engine(
    files: Path, threads: int, length: int, *, dtype: str = "fp32", quantize: str | None = None
) -> Engine:
    torch.set_num_threads(threads)
    return Engine(load_ours(files / "checkpoint", dtype, quantize))
