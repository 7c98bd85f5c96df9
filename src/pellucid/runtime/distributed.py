"""The processes that train one run together, as one value: who is which, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from pellucid.errors import ConfigError, PellucidError, WorkerError

T = TypeVar("T")

TENSORS_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others' tensors. One that died is noticed at once; this is for one that hangs."""
WORDS_TIMEOUT = timedelta(days=7)
"""How long it waits for the main one's word, which may have text to prepare first."""


@dataclass(frozen=True)
class Processes:
    """One process among `world` equal ones, counted from 0; the main one is 0. Alone, everything here does nothing.

    Every method is called by all of them, in the same order. Leave the `with` block, or call `close`, at the end.
    """

    rank: int = 0
    world: int = 1
    _words: dist.ProcessGroup | None = None
    """Connects the main memories of all, whatever device their tensors are on."""

    @property
    def is_main(self) -> bool:
        """Whether this one prints, and writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, which is overwritten with it."""
        if self.world > 1:
            with _all_there():
                dist.all_reduce(tensor)
        return tensor

    def main_number(self, number: float) -> float:
        """The main one's number."""
        if self.world == 1:
            return number
        said = torch.tensor(number, dtype=torch.float64)
        with _all_there():
            dist.broadcast(said, 0, group=self._words)
        return said.item()

    def union(self, flags: int) -> int:
        """All bits that are set in anyone's flags."""
        if self.world == 1:
            return flags
        said = torch.tensor(flags)
        with _all_there():
            dist.all_reduce(said, dist.ReduceOp.BOR, group=self._words)
        return int(said.item())

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main one work while the others wait; all get what came of it.

        An error is raised in the main process; the others, which it leaves nothing to do, exit without a word.
        """
        if self.world == 1:
            return work()
        result: T | None = None
        if self.is_main:
            try:
                result = work()
            except BaseException as error:
                status = error.exit_status if isinstance(error, PellucidError) else 1
                self._tell((None, status))
                self.close()  # all know; and an interpreter that leaves with gloo's threads at work may be aborted
                raise
        result, status = self._tell((result, None))
        if status is not None:
            self.close()
            raise SystemExit(status)
        return cast(T, result)

    def main_first(self, work: Callable[[], T]) -> T:
        """Let the main one work, then all others do the same; each gets its own result. Errors as in `on_main`."""
        done: list[T] = []
        self.on_main(lambda: done.append(work()))
        return done[0] if done else work()

    def close(self) -> None:
        """Part from the others."""
        if self.world > 1:
            dist.destroy_process_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # after an error the others may not answer any more; the process ends in any case
            self.close()

    def _tell(self, value: tuple[Any, int | None]) -> tuple[Any, int | None]:
        said = [value]
        with _all_there():
            dist.broadcast_object_list(said, 0, group=self._words)
        return said[0]


ALONE = Processes()


@contextmanager
def _all_there() -> Generator[None]:
    """Raise WorkerError where one of the others has ended."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(
            "another process of this run has ended, or has not answered in time; its own message says why"
        ) from error


def from_environment(device_type: str, environment: Mapping[str, str] = os.environ) -> Processes:
    """The processes that torchrun started: by its RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Tensors on CUDA go through nccl, each process on the GPU of its local rank; all else through gloo. Without those
    variables this process is alone. Raises ConfigError where a part of them is missing, or a GPU.
    """
    world = int(environment.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    if missing := [n for n in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in environment]:
        raise ConfigError(
            f"WORLD_SIZE is {world}, and {', '.join(missing)} is not set; start the processes with torchrun "
            f"--nproc-per-node {world} -m pellucid …, or unset WORLD_SIZE"
        )
    if device_type == "mps":
        raise ConfigError(
            f"{world} processes cannot share an Apple GPU; train with one, or with --device cpu"
        )
    if device_type == "cuda":
        local_rank, found = int(environment["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= found:
            raise ConfigError(
                f"--nproc-per-node: process {local_rank} has no GPU, there are {found} here; start one process a GPU"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=TENSORS_TIMEOUT)
    return Processes(
        int(environment["RANK"]), world, cast(Any, dist.new_group(backend="gloo", timeout=WORDS_TIMEOUT))
    )
