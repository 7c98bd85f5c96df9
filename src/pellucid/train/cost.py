"""What a run needs: parameters, memory, FLOPs. Counted on a model that is never allocated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pellucid.model.short_attention import LONGEST
from pellucid.model.stats import (
    count_parameters,
    count_token_flops,
    count_training_state,
    estimate_activation_bytes,
    on_meta,
)
from pellucid.runtime.device import Device
from pellucid.runtime.memory import total_bytes
from pellucid.train.config import RunConfig
from pellucid.train.opening import open_data, plan_run


@dataclass(frozen=True)
class Cost:
    """The plan of a run in numbers. Bytes; FLOPs of matrix products."""

    parameters: int
    non_embedding_parameters: int
    vocab_size: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """Estimated, for one micro-batch."""
    device_bytes: int
    """The memory that the device has."""
    steps: int | None
    tokens: int | None
    micro_batch: int
    accumulation: int
    flops_per_token: int
    flops: int | None
    choices: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.activations_bytes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""

        def mib(count: int) -> str:
            return f"{count / 2**20:,.1f} MiB"

        length = "by time" if self.steps is None else f"{self.steps:,} steps, {self.tokens:,} tokens"
        work = "" if self.flops is None else f", {self.flops:.3g} for the run"
        return [
            ("parameters", f"{self.parameters:,} ({self.non_embedding_parameters:,} without embeddings)"),
            ("vocabulary", f"{self.vocab_size:,}"),
            ("weights", mib(self.weights_bytes)),
            ("gradients", mib(self.gradients_bytes)),
            ("optimizer state", mib(self.optimizer_bytes)),
            ("activations", f"{mib(self.activations_bytes)} (estimated, micro-batch of {self.micro_batch})"),
            ("memory in all", f"{mib(self.total_bytes)} of the device's {mib(self.device_bytes)}"),
            ("length", length),
            ("FLOPs", f"{self.flops_per_token:.3g} a token{work}"),
            *(("", choice) for choice in self.choices),
        ]


def estimate_cost(config: RunConfig, device: Device) -> Cost:
    """Count a run's needs. Raw text is prepared into the cache, because the vocabulary and the epoch depend on it."""
    plan, _ = plan_run(config, open_data(config), device)
    model = on_meta(plan.config.model)
    assert plan.config.model.vocab_size is not None
    parameters, state = count_parameters(model), count_training_state(model)
    flops = count_token_flops(model, plan.seq_len).training
    activations = estimate_activation_bytes(
        model,
        plan.micro_batch,
        plan.seq_len,
        element_bytes=plan.precision.dtype.itemsize,
        recompute=config.train.activation_checkpointing == "full",
        keeps_scores=device.type == "cpu" and plan.precision.name == "bf16" and plan.seq_len <= LONGEST,
    )
    tokens = plan.steps * config.train.batch_tokens if plan.steps else None
    return Cost(
        parameters=parameters.total,
        non_embedding_parameters=parameters.non_embedding,
        vocab_size=plan.config.model.vocab_size,
        weights_bytes=state.weights,
        gradients_bytes=state.gradients,
        optimizer_bytes=state.optimizer,
        activations_bytes=activations.hidden,
        device_bytes=total_bytes(device.type),
        steps=plan.steps,
        tokens=tokens,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        flops_per_token=flops,
        flops=flops * tokens if tokens else None,
        choices=plan.reasons,
    )
