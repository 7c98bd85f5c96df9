"""This project: a checkpoint, and the loop that all its generation goes through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pellucid.generate.opening import Writer, open_writer
from pellucid.model.decoding import decode
from pellucid.model.packed import Quantised
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import PrecisionName


class Engine:
    def __init__(self, writer: Writer) -> None:
        self._model, self.weight_bytes = writer.loaded.model, writer.bytes

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        steps: list[list[int]] = []
        for new in decode(self._model, torch.tensor(prompts), count, lambda logits, _: logits.argmax(dim=-1)):
            steps.append(new.tolist())
            mark()
        return [list(row) for row in zip(*steps, strict=True)]


def open_engine(
    files: Path,
    threads: int,
    length: int,
    *,
    dtype: PrecisionName = "auto",
    quantize: Quantised | None = None,
) -> Engine:
    """As `pellucid generate --dtype … --quantize …` has it."""
    torch.set_num_threads(threads)
    return Engine(open_writer(files / "checkpoint", choose_device("cpu"), dtype, quantize))
