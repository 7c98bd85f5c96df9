"""What a run would use here, and why; and what of it is not deterministic."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.model.kernels.short import LONGEST
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision
from pellucid.train.techniques import Techniques


@dataclass(frozen=True)
class Choice:
    what: str
    chosen: str
    reason: str


_ATTENTION = {
    "cpu": ("torch's fused kernel", "the fastest one in this precision; short windows have another in bf16"),
    "cuda": (
        "torch's fused kernel (flash); FlexAttention for masks and soft-caps",
        "the scores are never all in memory",
    ),
    "mps": ("torch's fused kernel", "what Metal has"),
}
_ATTENTION_BF16_CPU = (
    f"batched products up to {LONGEST} tokens, torch's fused kernel above",
    "the faster one for training in bf16 at each length",
)
_DETERMINISM = {
    "cpu": (
        "to the bit, for equal threads and versions",
        "every operation used has a fixed order of sums; another number of threads sums in another order",
    ),
    "cuda": (
        "asked of torch (deterministic algorithms, CUBLAS_WORKSPACE_CONFIG=:4096:8)",
        "without a deterministic form: the backward pass of memory-efficient attention (dense masks, learned biases) "
        "and float cumsum (sampling by top-p); torch warns where one is used",
    ),
    "mps": ("not promised", "torch documents no deterministic form of its Metal kernels"),
}


def choices(device: Device, precision: Precision) -> tuple[Choice, ...]:
    """Device, number format, compiler, attention, techniques, optimizer and determinism, each with its reason."""
    is_bf16_cpu = device.type == "cpu" and precision.name == "bf16"
    return (
        Choice("device", device.type, device.reason),
        Choice("precision", precision.name, precision.reason),
        Choice(
            "TF32",
            "off" if device.has_tf32 else "not here",
            "train.tf32=true turns it on" if device.has_tf32 else "a format of NVIDIA GPUs from Ampere on",
        ),
        Choice(
            "torch.compile",
            "in runs of some minutes" if device.can_compile else "off",
            device.compile_reason,
        ),
        Choice("attention", *(_ATTENTION_BF16_CPU if is_bf16_cpu else _ATTENTION[device.type])),
        Choice(
            "techniques",
            Techniques().resolved(precision.device).line.removeprefix("techniques: "),
            "chosen for the device; train.techniques turns each on or off",
        ),
        Choice(
            "optimizer",
            "AdamW by torch's fused kernel",
            "where a config names no other; its loop over parameters is slower",
        ),
        Choice("determinism", *_DETERMINISM[device.type]),
    )
