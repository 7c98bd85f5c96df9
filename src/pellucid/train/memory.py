"""What a planned run is estimated to need of memory."""

from __future__ import annotations

import os

from pellucid.data.objectives import Objective
from pellucid.losses.linear_cross_entropy import CHUNK_BYTES
from pellucid.model import Transformer
from pellucid.model.stats import estimate_activation_bytes
from pellucid.runtime.device import Device
from pellucid.runtime.memory import total_bytes
from pellucid.train.optimizer import count_training_state
from pellucid.train.plan import Plan, largest_divisor
from pellucid.train.techniques import why_no_short_attention


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


def estimate_buffers(plan: Plan, objective: Objective, model: Transformer, micro_batch: int = 0) -> int:
    """Bytes that an update takes besides weights, gradients, optimizer and activations: the loss' logits and its
    float32 gradient of the table, and the copies of the weights that autocast keeps.
    """
    table, narrow = model.head_parameters().weight, plan.precision.dtype.itemsize
    tokens = (micro_batch or plan.micro_batch) * objective.decoder_len
    logits = min(CHUNK_BYTES, tokens * len(table) * narrow)
    slopes = 0 if model.head_parameters().softcap is None else logits
    copies = narrow * sum(p.numel() for p in model.parameters()) if narrow < table.itemsize else 0
    return table.nbytes + logits + slopes + copies


def sharers(device: Device) -> int:
    """Processes of this run that share the device's memory: all of this machine on a CPU; a GPU has one alone."""
    return 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def within_memory(plan: Plan, objective: Objective, model: Transformer) -> Plan:
    """In smaller micro-batches where, beside weights and optimizer, half the memory is estimated to be too little."""
    room = total_bytes(plan.device.type) // 2 // sharers(plan.device)
    room -= count_training_state(model, plan.config.train).total + estimate_buffers(plan, objective, model)
    fitting = max(1, room // estimate_activations(plan, objective, model, micro_batch=1))
    if fitting >= plan.micro_batch:
        return plan
    return plan.with_micro_batch(largest_divisor(plan.share_windows, fitting), "for want of memory")


def _score_bytes(plan: Plan, target_len: int) -> int:
    """Bytes that the attention kernel will keep of a score: 0 where it is fused.

    The reference kernel keeps float32 probabilities twice (before and after rows without keys are cleared), and a
    soft-cap's tanh besides. On CPUs, torch's own fallback for learned biases keeps them once, that for dropout twice
    as well, kernels/short.py in bf16.
    """
    model, on_cpu = plan.config.model, plan.device.type == "cpu"
    attention, position = model.attention, model.position.kind
    if attention.kernel == "reference" or (attention.softcap is not None and plan.device.type != "cuda"):
        return 8 if attention.softcap is None else 12
    if on_cpu and attention.dropout:
        return 8
    if on_cpu and position == "t5":
        return 4
    return 2 if why_no_short_attention(plan.config, plan.precision, target_len) is None else 0
