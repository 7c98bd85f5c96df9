"""Ways to compute the same in less time. Each can be turned off, to see what it gives or to be rid of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.config import Config
from pellucid.data.objectives import CausalConfig
from pellucid.model.kernels.short import LONGEST
from pellucid.runtime.allocator import can_keep_memory
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision

if TYPE_CHECKING:
    from pellucid.train.config import RunConfig

LOSS_TILE = 1024
"""Ids of a tile: its logits, of a few thousand tokens in bf16, fit the cache of one core."""


class Techniques(Config):
    """What is left out is chosen for the device; docs/experiments.md says what each gave. They round differently."""

    tiled_loss: bool | None = None
    """Whether the loss works on tiles of ids that fit the processor's cache. Left out: on CPUs."""
    kept_memory: bool | None = None
    """Whether freed memory is kept for the next tensor instead of being cleared again by the system. Left out: on CPUs,
    where the C library is glibc."""

    def resolved(self, device: Device) -> Techniques:
        """Every choice made; off is what changes nothing here, asked for or not."""
        on_cpu = device.type == "cpu"
        tiled, kept = (on_cpu if asked is None else asked for asked in (self.tiled_loss, self.kept_memory))
        return Techniques(tiled_loss=tiled, kept_memory=kept and can_keep_memory())

    @property
    def line(self) -> str:
        """Those that are on, in words."""
        on = [name.replace("_", " ") for name, is_on in self if is_on]
        off = [name.replace("_", " ") for name, is_on in self if not is_on]
        return f"techniques: {', '.join(on) or 'none'}" + (f" (off: {', '.join(off)})" if off else "")


def why_no_short_attention(config: RunConfig, precision: Precision, length: int) -> str | None:
    """Why a run's attention will not be `model/kernels/short.py`; None where it will be, in nearly all layers."""
    attention, objective = config.model.attention, config.data.objective
    if attention.kernel != "auto":
        return "another kernel is asked for"
    if precision.device.type != "cpu" or precision.name != "bf16":
        return "it is for bf16 on a CPU"
    if attention.dropout:
        return "attention has dropout"
    is_causal = isinstance(objective, CausalConfig) and objective.packing == "contiguous"
    has_bias = config.model.position.kind in ("t5", "alibi") or attention.softcap is not None
    if not is_causal or has_bias or attention.window is not None:
        return "it is for the plain causal mask"
    return f"windows are longer than {LONGEST} tokens" if length > LONGEST else None
