"""What a planned run is estimated to keep in memory for one micro-batch."""

from __future__ import annotations

from pellucid.data.objectives import CausalConfig, Objective
from pellucid.model import Transformer
from pellucid.model.kernels.short import LONGEST
from pellucid.model.stats import estimate_activation_bytes
from pellucid.runtime.memory import total_bytes
from pellucid.train.optimizer import count_training_state
from pellucid.train.plan import Plan, largest_divisor


def estimate_activations(plan: Plan, objective: Objective, model: Transformer, micro_batch: int = 0) -> int:
    """Bytes kept between forward and backward for a micro-batch (0: the plan's own). Only shapes are looked at."""
    return estimate_activation_bytes(
        model,
        micro_batch or plan.micro_batch,
        objective.decoder_len,
        objective.encoder_len,
        element_bytes=plan.precision.dtype.itemsize,
        recompute=plan.config.train.activation_checkpointing,
        score_bytes=_score_bytes(plan, objective.decoder_len),
    ).hidden


def within_memory(plan: Plan, objective: Objective, model: Transformer) -> Plan:
    """In smaller micro-batches where, beside weights and optimizer, half the memory is estimated to be too little."""
    room = total_bytes(plan.device.type) // 2 - count_training_state(model, plan.config.train).total
    fitting = max(1, room // estimate_activations(plan, objective, model, micro_batch=1))
    if fitting >= plan.micro_batch:
        return plan
    return plan.with_micro_batch(largest_divisor(plan.share_windows, fitting), "for want of memory")


def _score_bytes(plan: Plan, target_len: int) -> int:
    """Bytes that the attention kernel will keep of a score: 0 where it is fused.

    The reference kernel keeps float32 probabilities twice (before and after rows without keys are cleared), and a
    soft-cap's tanh besides. On CPUs, torch's own fallback for learned biases keeps them once, kernels/short.py in
    bf16.
    """
    model, on_cpu = plan.config.model, plan.device.type == "cpu"
    attention, position = model.attention, model.position.kind
    if attention.kernel == "reference" or (attention.softcap is not None and plan.device.type != "cuda"):
        return 8 if attention.softcap is None else 12
    if on_cpu and position == "t5":
        return 4
    is_plain = attention.kernel == "auto" and attention.window is None and position != "alibi"
    objective = plan.config.data.objective  # with any but this one hardly any layer is
    is_plain = is_plain and isinstance(objective, CausalConfig) and objective.packing == "contiguous"
    is_short = on_cpu and plan.precision.name == "bf16" and target_len <= LONGEST
    return 2 if is_plain and is_short else 0
