"""What does not fit into memory: an update is done again in smaller pieces, or stops with the numbers, as all else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pellucid.data.loader import TensorBatch
from pellucid.data.objectives import Objective
from pellucid.errors import TrainingError
from pellucid.model.stats import on_meta
from pellucid.runtime.allocator import release_freed_memory
from pellucid.runtime.memory import is_out_of_memory, peak_bytes, total_bytes
from pellucid.train.memory import estimate_activations, estimate_buffers
from pellucid.train.optimizer import count_training_state
from pellucid.train.plan import Plan
from pellucid.train.step import Outcome, Updater


@dataclass
class FittingUpdate:
    """An `Updater` that catches what torch raises where memory runs out.

    Under `train.out_of_memory = "halve"` the same token batch is done again in micro-batches of half the size, and
    so are all later ones: the gradient is the same but for the order of its sums, and for dropout, which is drawn
    anew for each piece. Only forward and backward are done again, before which nothing has been applied; an optimizer
    that ran out half-way stops the run in any case.
    """

    update: Updater
    plan: Plan
    objective: Objective
    run: Path
    recut: Callable[[Plan], None]
    """Told the new plan when a micro-batch was halved."""

    def __call__(self, batch: Sequence[TensorBatch], lr: float) -> Outcome:
        """As `Updater`. Raises TrainingError when memory runs out."""
        while True:
            pieces = [piece for micro in batch for piece in micro.split(self.plan.micro_batch)]
            mean_loss = self._gradients(pieces)
            if isinstance(mean_loss, Tensor):
                break
            self._halve(mean_loss)
        try:
            return self.update.apply(pieces, mean_loss, lr)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._failure(_first_line(error)) from None

    def _gradients(self, pieces: Sequence[TensorBatch]) -> Tensor | str:
        """The mean loss, or what was said when memory ran out.

        By a return value, because an exception that is still being handled keeps every frame, and so every
        activation, that it came through.
        """
        try:
            return self.update.gradients(pieces)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return _first_line(error)

    def _halve(self, said: str) -> None:
        smaller = _next_smaller(self.plan.micro_batch)
        is_alone = self.plan.world == 1  # what others have done of this step cannot be done again by one
        if smaller is None or not is_alone or self.plan.config.train.out_of_memory == "stop":
            raise self._failure(said)
        release_freed_memory()
        self.plan = self.plan.with_micro_batch(smaller, f"out of memory with {self.plan.micro_batch}")
        self.recut(self.plan)

    def _failure(self, said: str) -> TrainingError:
        plan, train = self.plan, self.plan.config.train
        model, kind = on_meta(plan.config.model), plan.device.type
        state = count_training_state(model, train)
        activations = estimate_activations(plan, self.objective, model)
        buffers = estimate_buffers(plan, self.objective, model)
        return TrainingError(
            f"step {self.update.state.step + 1}: out of memory in an update of {plan.accumulation} x "
            f"{plan.micro_batch} windows of {plan.seq_len} tokens ({said}). Estimated: weights {_mib(state.weights)}, "
            f"gradients {_mib(state.gradients)}, optimizer {_mib(state.optimizer)}, activations of one micro-batch "
            f"{_mib(activations)}, loss and copies of weights "
            f"{_mib(buffers)}; the device ({kind}) has {_mib(total_bytes(kind))}, and the peak was "
            f"{_mib(peak_bytes(kind))}. {self._advice()}"
        )

    def _advice(self) -> str:
        """The exact words to go on with: the newest checkpoint is kept, and a run without one begins anew."""
        train, resume = self.plan.config.train, f"pellucid train --resume {self.run}"
        smaller = _next_smaller(self.plan.micro_batch)
        ways = (
            []
            if smaller is None
            else [f"{resume} train.micro_batch={smaller}  (the same batches, in smaller pieces)"]
        )
        if train.activation_checkpointing != "full":
            ways.append(f"{resume} train.activation_checkpointing=full  (a third more time)")
        if not ways:
            return "One window with all activations computed again is too much: use a smaller model or train.seq_len."
        if smaller is not None and train.out_of_memory == "stop":
            ways.append("or, to have that done by itself from now on, add train.out_of_memory=halve")
        return "\n  ".join(["Go on with:", *ways])


@contextmanager
def naming_shortage(what: str, way_out: str) -> Generator[None]:
    """Memory that runs out inside is told as a TrainingError that says in what, and the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in {what} ({_first_line(error)}). The checkpoints saved before are kept: {way_out}"
        ) from None


def _next_smaller(micro_batch: int) -> int | None:
    """The largest number of windows that cuts a micro-batch into equal pieces: half, where it is even."""
    return max((d for d in range(1, micro_batch) if micro_batch % d == 0), default=None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
