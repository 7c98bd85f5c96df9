"""`train.micro_batch = "auto"`: the largest micro-batch that fits, found by updates that are thrown away.

On a GPU each size is tried, from one window on, until memory runs out. A CPU's operating system would rather end the
process, or its neighbours, than refuse memory; so there the next size is tried only if what the last one took, scaled
up, is well within what is free, and nothing is tried above the size from which on a CPU is no faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.data.objectives import Objective
from pellucid.data.order import Order
from pellucid.model.stats import on_meta
from pellucid.runtime.allocator import release_freed_memory
from pellucid.runtime.memory import GrowthWatch, available_bytes, is_out_of_memory
from pellucid.runtime.precision import allow_tf32
from pellucid.train.building import build_model, build_state, build_updater, make_deterministic
from pellucid.train.config import RunConfig
from pellucid.train.memory import estimate_activations, estimate_buffers, sharers
from pellucid.train.opening import OpenedData, build_objective
from pellucid.train.optimizer import count_training_state
from pellucid.train.plan import USUAL_TOKENS, Plan
from pellucid.train.step import Updater

_SHARE_OF_FREE = 0.8
"""What may be taken of a CPU's free memory: other processes need some, and evaluation and saving do."""


def with_fitting_micro_batch(config: RunConfig, plan: Plan, order: Order, data: OpenedData) -> Plan:
    """The plan with the micro-batch that was found, where the config leaves it to be found; else as it is.

    Tokens a step stay: only divisors of a batch's windows are tried. Compiled blocks, which keep less, are tried
    uncompiled.
    """
    if config.train.micro_batch != "auto":
        return plan
    make_deterministic()  # what is tried is what will run
    allow_tf32(plan.precision)
    on_cpu = plan.device.type == "cpu"
    sizes = [size for size in range(1, plan.share_windows + 1) if plan.share_windows % size == 0]
    usual = USUAL_TOKENS["cpu"] // plan.seq_len
    tried = [size for size in sizes if not on_cpu or size == 1 or size <= usual]
    trial = _Trial(plan, order, data, build_objective(plan.config, data.tokenizer))
    room = _room(plan) if on_cpu else None
    found, why = climb(tried, trial.needed_bytes, room=room)
    if why is None:
        why = "the whole batch" if len(tried) == len(sizes) else "a CPU gains nothing from more at a time"
    return plan.with_micro_batch(found, f"auto: {why}")


def _room(plan: Plan) -> int:
    """What is free for activations on a CPU, beside weights, gradients, optimizer and average."""
    state = count_training_state(on_meta(plan.config.model), plan.config.train).total
    return max(0, int(_SHARE_OF_FREE * available_bytes()) // sharers(plan.device) - state)


def climb(
    sizes: Sequence[int], needed_bytes: Callable[[int], int | None], *, room: int | None
) -> tuple[int, str | None]:
    """The largest of the ascending sizes that fits, and why not a larger one (None: there is no larger one).

    needed_bytes(size): the memory that this size took, None where it ran out. room: bytes that may be taken, where
    it is not to be found out by running out. The first size is taken in any case.
    """
    taken, needed = sizes[0], needed_bytes(sizes[0])
    if needed is None:
        return taken, f"even {taken} ran out of memory"
    for size in sizes[1:]:
        expected = needed * size / taken
        if room is not None and expected > room:
            return taken, f"{size} would take about {_gib(expected)} of the {_gib(room)} that are free"
        measured = needed_bytes(size)
        if measured is None:
            return taken, f"{size} ran out of memory"
        taken, needed = size, measured
    return taken, None


@dataclass
class _Trial:
    """Updates of rate 0 on a model of the run's shape, on batches of its data."""

    plan: Plan
    order: Order
    data: OpenedData
    objective: Objective
    _updater: Updater | None = None

    def needed_bytes(self, micro_batch: int) -> int | None:
        """The memory that an update with one such micro-batch took, None where there was too little.

        On a CPU the greater of what the process grew by and of the estimate, since freed memory that is used again
        does not show.
        """
        growth = self._growth(self._batch(micro_batch))
        if growth is None:  # here, where the error no longer holds the frames that it came through
            self._updater = None
            release_freed_memory()
            return None
        model = on_meta(self.plan.config.model)
        shapes = (self.plan, self.objective, model, micro_batch)
        return max(growth, estimate_activations(*shapes) + estimate_buffers(*shapes))

    def _growth(self, batch: list[TensorBatch]) -> int | None:
        try:
            if self._updater is None:
                self._updater = self._build()
                self._updater(batch, 0.0)  # makes the optimizer's state, which is no part of what follows
            with GrowthWatch() as watch:
                self._updater(batch, 0.0)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return watch.growth_bytes

    def _batch(self, micro_batch: int) -> list[TensorBatch]:
        with TrainingLoader(
            self.data.shards.train,
            self.order,
            objective=self.objective,
            batch_windows=micro_batch,
            micro_batch=micro_batch,
            device=self.plan.device.torch,
            read_ahead=0,
        ) as loader:
            return loader.step(0)

    def _build(self) -> Updater:
        plan = replace(self.plan, compiled=False)
        model = build_model(plan)
        return build_updater(plan, model, build_state(plan, model))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
