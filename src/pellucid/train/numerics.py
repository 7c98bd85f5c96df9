"""Does a device compute what the CPU computes? A model of a few thousand parameters, there and here.

A kernel that is wrong gives numbers that look like numbers: it is found by comparing, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import TrainingError
from pellucid.model import DecoderConfig, DecoderLM

TOLERANCE_FP32 = 1e-4
"""Largest error of a tensor by its largest entry. Sums of a hundred float32 terms are right to about 1e-6."""
TOLERANCE_NARROW = 5e-2
"""The same for bf16, whose every rounding is 2⁻⁹ = 0.2 %, and for fp16."""


@dataclass(frozen=True)
class Comparison:
    """Two ways of computing the same thing."""

    what: str
    error: float
    """max |a - b| / max |b| over the worst tensor; infinite where a number is not finite."""
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass gave, in float64 on the CPU."""

    logits: Tensor
    gradients: Sequence[Tensor]


def tiny_model() -> DecoderLM:
    """The default parts in small, grouped queries included; always the same weights."""
    config = DecoderConfig(
        vocab_size=101, d_model=32, num_layers=2, num_heads=4, num_kv_heads=2, max_seq_len=32
    )
    return config.build(seed=1)


def tiny_ids() -> Tensor:
    """Two rows of 32 ids."""
    return torch.arange(64).view(2, 32) * 37 % 101


def run_pass(
    model: DecoderLM,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    context: AbstractContextManager[object] | None = None,
) -> Pass:
    """Logits of `tiny_ids` and the gradients of their mean cross-entropy, with the weights in `dtype`."""
    model = model.to(device, dtype)
    ids = tiny_ids().to(device)
    model.zero_grad(set_to_none=True)
    with context or nullcontext():
        logits = model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).to(dtype), ids[:, 1:].flatten())
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return Pass(_kept(logits), [_kept(gradient) for gradient in gradients])


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def compare(what: str, found: Pass, wanted: Pass, tolerance: float) -> tuple[Comparison, Comparison]:
    """Logits against logits, and gradients against gradients."""
    pairs = zip(found.gradients, wanted.gradients, strict=True)
    worst = max(relative_error(*pair) for pair in pairs)
    return (
        Comparison(f"logits, {what}", relative_error(found.logits, wanted.logits), tolerance),
        Comparison(f"gradients, {what}", worst, tolerance),
    )


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The largest |found - wanted| by the largest |wanted|; infinite where a number is not finite."""
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    return error if torch.isfinite(found).all() else float("inf")


def compare_with_cpu(
    device: torch.device, build: Callable[[], DecoderLM] = tiny_model
) -> tuple[Comparison, Comparison]:
    """A model on the device in float32 against the same weights on the CPU in float64."""
    wanted = run_pass(tiny_model(), dtype=torch.float64)
    return compare(f"{device.type} fp32 against CPU fp64", run_pass(build(), device), wanted, TOLERANCE_FP32)


def require_sound(device: torch.device, build: Callable[[], DecoderLM] = tiny_model) -> None:
    """Raise TrainingError where the device does not compute what the CPU does."""
    for comparison in compare_with_cpu(device, build):
        if not comparison.passed:
            raise TrainingError(
                f"this {device.type} device computes wrongly ({comparison.what}: relative error "
                f"{comparison.error:.1e}, allowed {comparison.tolerance:.0e}); train with --device cpu, and update the "
                "system or torch (pellucid doctor shows more)"
            )
