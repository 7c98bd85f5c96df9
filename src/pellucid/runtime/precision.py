"""In which number format matrix products are computed: one value for training, evaluation and generation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from pellucid.errors import ConfigError
from pellucid.runtime.device import Device

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
_CACHED_BYTES = 64 * 2**20
"""Weights in float32 up to which a model is small enough to be written with exactly as it was saved."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Weights and optimizer state are float32; under bf16 or fp16, matrix products are computed narrower."""

    name: Literal["fp32", "bf16", "fp16"]
    device: Device
    reason: str
    tf32: bool = False
    """Whether products that stay in float32 read only 10 of its 23 bits of mantissa (`allow_tf32`)."""

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a forward pass runs."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def gradient_scaler(self) -> torch.amp.GradScaler | None:
        """fp16 gradients underflow unless the loss is scaled up; the other formats need no scaler."""
        return torch.amp.GradScaler(self.device.type) if self.name == "fp16" else None


def choose_precision(wanted: PrecisionName, device: Device, *, tf32: bool = False) -> Precision:
    """bf16 where the hardware has it, fp16 with a scaler on GPUs without bf16, else fp32; MPS trains in fp32.

    Raises ConfigError for a format that the device cannot train in.
    """
    if wanted == "auto":
        return _chosen(device, tf32)
    if wanted == "fp16" and device.type != "cuda":
        raise ConfigError(f"fp16 needs a CUDA GPU, and the device is {device.type}; use bf16 or fp32")
    if wanted == "bf16" and device.type == "mps":
        raise ConfigError("MPS trains in float32 here; use fp32 or auto")
    is_emulated = wanted == "bf16" and not device.has_bf16
    reason = "as asked; this hardware emulates bf16, which is slower than fp32" if is_emulated else "as asked"
    return Precision(wanted, device, reason, tf32)


def _chosen(device: Device, tf32: bool) -> Precision:
    if device.type == "mps":
        return Precision("fp32", device, "MPS trains in float32", tf32)
    if device.has_bf16:
        return Precision("bf16", device, "this hardware multiplies bf16 natively", tf32)
    if device.type == "cuda":
        return Precision("fp16", device, "this GPU lacks bf16; fp16 with a gradient scaler", tf32)
    return Precision("fp32", device, "this CPU lacks native bf16", tf32)


def allow_tf32(precision: Precision) -> None:
    """Tell torch, for the whole process, whether float32 products on a GPU may be computed as TF32.

    Relative rounding 2⁻¹¹ instead of 2⁻²⁴, sums in float32.  torch's newer switch (`fp32_precision`) would do, but
    its compiler still asks the older one, which raises where the newer was used (torch 2.13).
    """
    torch.set_float32_matmul_precision("high" if precision.tf32 else "highest")


def choose_generation_format(
    wanted: PrecisionName, device: Device, *, reads_narrow: bool, weight_bytes: int
) -> Literal["fp32", "bf16", "fp16"]:
    """The format of the weights while text is written.

    One token at a time is bound by reading weights. bf16 on GPUs that have it; on CPUs where they are read at the
    rate of the memory (torch itself does not: `reads_narrow`) and are too many for the processor's caches. Else fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if device.has_bf16 else "fp32"
    return "bf16" if device.type == "cpu" and reads_narrow and weight_bytes > _CACHED_BYTES else "fp32"
