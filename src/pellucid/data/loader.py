"""Batches as tensors on the device, read ahead by a thread. The only file of `data` that imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from pellucid.data.batch import Batch, Origin
from pellucid.data.objectives import Causal, Objective
from pellucid.data.order import Order
from pellucid.data.shards import Split
from pellucid.errors import ConfigError

_MODEL_INPUTS = {
    "inputs": "input_ids",
    "positions": "positions",
    "documents": "documents",
    "prefix_lengths": "prefix_lengths",
    "encoder_inputs": "encoder_ids",
    "encoder_documents": "encoder_documents",
}
"""A batch's fields by the keywords of `model.hidden`."""
_TENSORS = (*_MODEL_INPUTS, "targets", "weights")
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, eq=False)
class TensorBatch:
    """A `Batch` as tensors. Shapes: B windows · T ids of the (target) sequence · S ids of an encoder's source."""

    inputs: Int64[Tensor, "B T"]
    targets: Int64[Tensor, "B T"]
    weights: Float32[Tensor, "B T"]
    origin: Origin
    positions: Int64[Tensor, "B T"] | None = None
    documents: Int64[Tensor, "B T"] | None = None
    prefix_lengths: Int64[Tensor, " B"] | None = None
    encoder_inputs: Int64[Tensor, "B S"] | None = None
    encoder_documents: Int64[Tensor, "B S"] | None = None

    @classmethod
    def of(cls, batch: Batch, *, pinned: bool = False) -> TensorBatch:
        """Tensors in main memory; they share the arrays' memory unless pinned for a copy to a CUDA device."""

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).pin_memory() if pinned else torch.from_numpy(array)

        arrays: dict[str, NDArray[Any] | None] = {name: getattr(batch, name) for name in _TENSORS}
        tensors: dict[str, Any] = {n: None if a is None else tensor(a) for n, a in arrays.items()}
        return cls(**tensors, origin=batch.origin)

    def to(self, device: torch.device) -> TensorBatch:
        """The batch on the device. From pinned memory the copy does not hold up the caller."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=tensor.is_pinned() if device.type == "cuda" else False)

        return replace(self, **{name: moved(tensor) for name, tensor in self._tensors(_TENSORS)})

    def split(self, rows: int) -> list[TensorBatch]:
        """The batch in pieces of at most `rows` windows, which share its memory."""
        if len(self.inputs) <= rows:
            return [self]
        parts = [slice(first, first + rows) for first in range(0, len(self.inputs), rows)]
        return [
            replace(
                self,
                origin=self.origin.rows(part),
                **{name: tensor[part] for name, tensor in self._tensors(_TENSORS)},
            )
            for part in parts
        ]

    def model_inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of `model.hidden` that this batch has a value for; `input_ids` always."""
        return {_MODEL_INPUTS[name]: tensor for name, tensor in self._tensors(_MODEL_INPUTS)}

    def _tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor


class TrainingLoader(AbstractContextManager["TrainingLoader"]):
    """The micro-batches of any training step; the steps that follow are read ahead in the background.

    batch_windows: windows in the global batch of a step, a multiple of `world`, the number of processes.
    micro_batch: windows a micro-batch; the last one of a step has fewer where it does not divide this rank's
    share. read_ahead: steps to have ready. objective: what makes batches of windows, and made the order;
    causal by default. while_waiting: called a few times a second while a batch is not ready; what it raises ends
    the wait.

    It has no state that a checkpoint would need: `step(s)` is the same whatever was asked before. Leave the
    `with` block, or call `close`, to end the thread.
    """

    def __init__(
        self,
        split: Split,
        order: Order,
        *,
        objective: Objective | None = None,
        batch_windows: int,
        micro_batch: int,
        rank: int = 0,
        world: int = 1,
        device: str | torch.device = "cpu",
        read_ahead: int = 2,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        if batch_windows < 1 or batch_windows % world:
            raise ConfigError(
                f"a batch of {batch_windows} windows cannot be shared equally by {world} process(es)"
            )
        if micro_batch < 1:
            raise ConfigError(f"train.micro_batch: wanted at least 1 window, not {micro_batch}")
        objective = objective or Causal(order.seq_len)
        extents = objective.extents(split)
        if split.is_complete and tuple(order.shard_tokens) != tuple(extents):
            raise ConfigError(f"the order was made for other shards than those of the split {split.name!r}")
        self.waited_s = 0.0
        """Seconds the caller has spent waiting for batches, in all."""
        self._split, self._order, self._objective = split, order, objective
        self._batch_windows, self._micro_batch = batch_windows, micro_batch
        self._rank, self._world = rank, world
        self._device = torch.device(device)
        self._read_ahead, self._while_waiting = read_ahead, while_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pellucid-loader")
        self._pending: dict[int, Future[list[TensorBatch]]] = {}

    def step(self, step: int) -> list[TensorBatch]:
        """The micro-batches of a step for this rank, on the device. An error in the thread is raised here."""
        wanted = range(step, step + 1 + self._read_ahead)
        for stale in self._pending.keys() - set(wanted):
            self._pending.pop(stale).cancel()
        for ahead in wanted:
            if ahead not in self._pending:
                self._pending[ahead] = self._thread.submit(self._make, ahead)
        began = time.perf_counter()
        pending = self._pending.pop(step)
        while not wait([pending], timeout=_LOOK_EVERY_S).done:
            self._while_waiting()
        batches = pending.result()
        self.waited_s += time.perf_counter() - began
        return [batch.to(self._device) for batch in batches]

    def whole_step(self, step: int) -> list[TensorBatch]:
        """The micro-batches of all ranks in a step, those of rank 0 first."""
        shares = [self._thread.submit(self._share, step, rank) for rank in range(self._world)]
        return [batch.to(self._device) for share in shares for batch in share.result()]

    def close(self) -> None:
        """End the thread, once what it is making is made."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, step: int) -> list[TensorBatch]:
        return self._share(step, self._rank)

    def _share(self, step: int, rank: int) -> list[TensorBatch]:
        windows = self._order.step(step, self._batch_windows, rank=rank, world=self._world)
        self._split.expect(*self._order.upcoming(windows[0].number))
        groups = [windows[i : i + self._micro_batch] for i in range(0, len(windows), self._micro_batch)]
        return [
            TensorBatch.of(self._objective.batch(self._split, group), pinned=self._device.type == "cuda")
            for group in groups
        ]
