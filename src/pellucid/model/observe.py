"""One forward pass, recorded by hooks: what went into every module, what came out, and what it cost."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pellucid.model.attention import Attention
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import Hidden, LanguageModel
from pellucid.model.kernels import Kernel


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one module."""

    name: str
    """Its path in the model, e.g. `blocks.0.attention`; empty for the model itself."""
    module: nn.Module
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: Any

    @property
    def input(self) -> Tensor:
        """The first thing that went in."""
        return cast(Tensor, self.inputs[0])

    @property
    def result(self) -> Tensor:
        """What came out, without side losses."""
        output = self.output.states if isinstance(self.output, Hidden) else self.output
        return cast(Tensor, output[0] if isinstance(output, tuple) else output)


@dataclass(frozen=True, eq=False)
class Observation:
    """A forward pass: its steps in the order in which they began, and FLOPs by module."""

    steps: tuple[Step, ...]
    flops: Mapping[str, int]
    """FLOPs of matrix products by module path, what is inside it included; attention counted unmasked."""

    @cached_property
    def _by_name(self) -> dict[str, list[Step]]:
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.name, []).append(step)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def step(self, name: str, call: int = 0) -> Step:
        """The call of that number of a module. Raises KeyError for a module that did not run."""
        if name not in self._by_name:
            raise KeyError(f"{name}: did not run in this pass; these did: {', '.join(self._by_name)}")
        return self._by_name[name][call]

    @property
    def logits(self) -> Tensor:
        """[B, T, V]: what the model itself returned."""
        return self.step("").result


def observe(model: LanguageModel, *ids: Int[Tensor, "B T"]) -> Observation:
    """Run `model(*ids)` once, in evaluation mode and without gradients, and record it.

    Hooks only look: the results are those of any other pass, and no hook is left behind. Attention runs by
    the kernel that the model would use on a CPU; FlexAttention, and the kernels of other devices, whose
    products torch's counter cannot see, are replaced by the reference one meanwhile.
    Raises TypeError for a model that is no `nn.Module`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"only an nn.Module has hooks to be observed by, not {type(model).__name__}")
    began: list[Step | None] = []  # a place for each call, filled when it ends
    running: list[int] = []
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        del module, inputs, keywords
        running.append(len(began))
        began.append(None)

    def after(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        began[running.pop()] = Step(names[module], module, inputs, keywords, output)

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(after, with_kwargs=True) for module in names]
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    try:
        with torch.inference_mode(), evaluation_mode(model), _countable_kernels(model), counter:
            model(*ids)
    finally:
        for handle in handles:
            handle.remove()
    steps = tuple(step for step in began if step is not None)
    return Observation(steps, _by_path(counter, type(model).__name__))


@contextmanager
def _countable_kernels(model: nn.Module) -> Generator[None]:
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    kernels: list[Kernel] = [attention.kernel for attention in attentions]
    try:
        for attention in attentions:
            if attention.kernel == "flex" or attention.query.weight.device.type != "cpu":
                attention.kernel = "reference"
        yield
    finally:
        for attention, kernel in zip(attentions, kernels, strict=True):
            attention.kernel = kernel


def _by_path(counter: FlopCounterMode, root: str) -> dict[str, int]:
    """The counter names modules `Root.path.to.module`; here they are named as in the model."""
    return {
        name.removeprefix(root).removeprefix("."): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }


def _fused_attention_flops(q: Any, k: Any, v: Any, *rest: Any, **named: Any) -> int:
    """2 · B · H · T · S · E for q kᵀ, and as much for its product with v."""
    del rest, named
    batch, heads, queries, head_dim = q
    return 2 * batch * heads * queries * k[2] * (head_dim + v[3])


def _grouped_product_flops(rows: Any, matrices: Any, *rest: Any, **named: Any) -> int:
    """2 · N · D · F: every row meets one of the matrices [X, D, F]."""
    del rest, named
    return 2 * rows[0] * rows[1] * matrices[-1]


_FORMULAS: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention_flops,
    torch.ops.aten._grouped_mm: _grouped_product_flops,
}
"""Products that torch's counter leaves out: it gets their operands' shapes."""
