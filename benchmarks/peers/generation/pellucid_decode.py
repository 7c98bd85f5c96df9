"""This project: a checkpoint opened and written with as `pellucid generate` does, but for the text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from pellucid.generate.engine import Writing
from pellucid.generate.opening import Writer, open_writer
from pellucid.generate.sampling import SamplingConfig
from pellucid.model.packed import Quantised
from pellucid.runtime.allocator import freed_memory_kept
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import PrecisionName


class Engine:
    def __init__(self, writer: Writer) -> None:
        self._model, self.weight_bytes = writer.loaded.model, writer.bytes
        self._while_open = ExitStack()
        self._while_open.enter_context(freed_memory_kept())

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in prompts]
        sampling = SamplingConfig(temperature=0, max_new_tokens=count)
        for chosen in Writing(self._model, prompts, sampling).steps():
            for each in chosen:
                rows[each.row].append(each.id)
            mark()
        return rows


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
