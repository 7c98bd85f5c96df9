"""Ways to compute the same in less time. Each can be turned off, to see what it gives or to be rid of it."""

from __future__ import annotations

from pellucid.config import Config
from pellucid.runtime.allocator import can_keep_memory
from pellucid.runtime.precision import Precision

LOSS_TILE = 1024
"""Ids of a tile: its logits, of a few thousand tokens in bf16, fit the cache of one core."""


class Techniques(Config):
    """What is left out is chosen for the device; docs/experiments.md says what each gave. They round differently."""

    tiled_loss: bool | None = None
    """Whether the loss works on tiles of ids that fit the processor's cache. Left out: on CPUs."""
    contiguous_gradients: bool | None = None
    """Whether the transposed factor of a weight's gradient is written out first. Left out: on CPUs, under bf16."""
    kept_memory: bool | None = None
    """Whether freed memory is kept for the next tensor instead of being cleared again by the system. Left out: on CPUs,
    where the C library is glibc."""

    def resolved(self, precision: Precision) -> Techniques:
        """Every choice made."""
        on_cpu = precision.device.type == "cpu"
        chosen = {
            "tiled_loss": on_cpu,
            "contiguous_gradients": on_cpu and precision.name == "bf16",
            "kept_memory": on_cpu and can_keep_memory(),
        }
        return self.model_copy(update={n: on for n, on in chosen.items() if getattr(self, n) is None})

    @property
    def line(self) -> str:
        """Those that are on, in words."""
        on = [name.replace("_", " ") for name, is_on in self if is_on]
        off = [name.replace("_", " ") for name, is_on in self if not is_on]
        return f"techniques: {', '.join(on) or 'none'}" + (f" (off: {', '.join(off)})" if off else "")
