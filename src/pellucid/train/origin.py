"""Where numbers stopped being finite: the step is made once more, eagerly, and every module is watched."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pellucid.data.loader import TensorBatch
from pellucid.train.step import Updater


@dataclass(frozen=True)
class Numbers:
    """What is in a tensor."""

    shape: tuple[int, ...]
    dtype: str
    smallest: float | None
    """Of the finite ones; None where there are none."""
    largest: float | None
    not_finite: float
    """The share that is not finite, 0 … 1."""

    @classmethod
    def of(cls, tensor: Tensor) -> Numbers:
        values = tensor.detach()
        finite = values[values.isfinite()]
        has_any = finite.numel() > 0
        return cls(
            shape=tuple(values.shape),
            dtype=str(values.dtype).removeprefix("torch."),
            smallest=finite.min().item() if has_any else None,
            largest=finite.max().item() if has_any else None,
            not_finite=1 - finite.numel() / max(1, values.numel()),
        )


@dataclass(frozen=True)
class Origin:
    """The first thing in a step that was not finite.

    output: what a module returned. inside: what a module computed between the modules within it, such as attention's
    scores, and handed to the next of them; all that had gone into the module itself was finite. loss: that of states
    which were all finite. gradient: a parameter's, while the loss was finite; the last such parameter in the model's
    order, since gradients come from the model's end.
    """

    kind: Literal["output", "inside", "loss", "gradient"]
    name: str
    """Of the parameter or the module, as in the model; empty for the loss and for the model itself."""
    numbers: Numbers
    input: Numbers | None = None
    """What went into the module."""
    module: str | None = None
    """The module's class."""


def find_origin(update: Updater, batch: Sequence[TensorBatch], step: int, *, compiled: bool) -> Origin | None:
    """Make the step after `step` updates again, with the weights as they are; None where all of it is finite.

    compiled: whether the model's blocks are; they run eagerly meanwhile, so that there are modules to watch. Weights
    and optimizer stay as they are, and no gradient is left.
    """
    model = update.state.model
    update = replace(update, state=replace(update.state, step=step))
    eagerly = (
        torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    )  # it takes seconds to import
    try:
        with eagerly, _watched(model) as watch:
            loss = update.gradients(batch)
        if watch.found:
            return watch.found
        if not loss.isfinite():
            return Origin("loss", "", Numbers.of(loss))
        for name, parameter in reversed(list(model.named_parameters())):
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                return Origin("gradient", name, Numbers.of(parameter.grad))
        return None
    finally:
        model.zero_grad(set_to_none=True)


class _Watch:
    """Sees every module begin and end, in the order of time; keeps the first thing that was not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.found: Origin | None = None
        self._names = {module: name for name, module in model.named_modules()}
        self._within: list[tuple[nn.Module, Tensor | None]] = [(model, None)]
        """The modules that have begun and not ended, outermost first, each with what went in."""

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """What goes in comes from the module around it, if no module that has ended gave it."""
        given = next(_float_tensors(inputs), None)
        if given is not None:
            self._look("inside", given)
        self._within.append((module, given))

    def end(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for tensor in _float_tensors(output):
            self._look("output", tensor)
        self._within.pop()

    def _look(self, kind: Literal["output", "inside"], tensor: Tensor) -> None:
        # Detached, because what a forward pass saves for its gradient must be the same when it is recomputed.
        if self.found is not None or tensor.detach().isfinite().all():
            return
        module, given = self._within[-1]
        self.found = Origin(
            kind,
            self._names[module],
            Numbers.of(tensor),
            input=None if given is None else Numbers.of(given),
            module=type(module).__name__,
        )


@contextmanager
def _watched(model: nn.Module) -> Generator[_Watch]:
    watch = _Watch(model)
    handles = [module.register_forward_pre_hook(watch.begin) for module in model.modules()]
    # Called also where a forward pass is broken off, as those are that recompute only what is missing.
    handles += [module.register_forward_hook(watch.end, always_call=True) for module in model.modules()]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _float_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of floating-point numbers in what a module takes or gives."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[Any, Any], value).values():
            yield from _float_tensors(item)
    elif isinstance(value, tuple | list):
        for item in cast(Sequence[Any], value):
            yield from _float_tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _float_tensors(getattr(value, field.name))
