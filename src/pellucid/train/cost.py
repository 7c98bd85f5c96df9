"""What a run needs: parameters, memory, FLOPs. Counted on a model that is never allocated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pellucid.model.stats import (
    count_cache_bytes,
    count_flops,
    count_parameters,
    on_meta,
)
from pellucid.optim import UpdateRow, report
from pellucid.runtime.device import Device
from pellucid.runtime.memory import total_bytes
from pellucid.train.config import RunConfig
from pellucid.train.memory import estimate_activations, estimate_buffers
from pellucid.train.opening import build_objective, open_data, plan_run
from pellucid.train.optimizer import build_optimizer, count_training_state


@dataclass(frozen=True)
class Cost:
    """The plan of a run in numbers. Bytes; FLOPs of matrix products."""

    family: str
    """model.kind: "decoder" or "encoder_decoder"."""
    parameters: int
    active_parameters: int
    """Those that work on one token: fewer than all in a mixture of experts."""
    non_embedding_parameters: int
    vocab_size: int
    source_len: int | None
    """Tokens of an encoder's source in training; None for a decoder."""
    target_len: int
    """Tokens of the sequence that is learned."""
    weights_bytes: int
    average_bytes: int
    """The moving average of the weights; 0 where the run keeps none."""
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """Estimated, for one micro-batch."""
    buffers_bytes: int
    """Estimated: logits, the table's gradient in the loss, autocast's copies of the weights."""
    device_bytes: int
    """The memory that the device has."""
    max_seq_len: int
    cache_bytes: int
    """Keys and values in float32 while one text of max_seq_len tokens is generated (from a source as long)."""
    steps: int | None
    tokens: int | None
    micro_batch: int
    accumulation: int
    flops_per_token: int
    """Training FLOPs of a window, forward and backward, by the tokens of a window."""
    flops: int | None
    updates: tuple[UpdateRow, ...]
    """Which parameters are updated how."""
    choices: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        state = self.weights_bytes + self.average_bytes + self.gradients_bytes + self.optimizer_bytes
        return state + self.activations_bytes + self.buffers_bytes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""

        def mib(count: int) -> str:
            return f"{count / 2**20:,.1f} MiB"

        active = "" if self.active_parameters == self.parameters else f"{self.active_parameters:,} active, "
        length = "by time" if self.steps is None else f"{self.steps:,} steps, {self.tokens:,} tokens"
        work = "" if self.flops is None else f", {self.flops:.3g} for the run"
        row = "" if self.source_len is None else f"{self.source_len:,} source tokens, "
        return [
            ("model", self.family.replace("_", "-")),
            (
                "parameters",
                f"{self.parameters:,} ({active}{self.non_embedding_parameters:,} without embeddings)",
            ),
            ("vocabulary", f"{self.vocab_size:,}"),
            ("weights", mib(self.weights_bytes)),
            *([("averaged weights", mib(self.average_bytes))] if self.average_bytes else []),
            ("gradients", mib(self.gradients_bytes)),
            ("optimizer state", mib(self.optimizer_bytes)),
            ("activations", f"{mib(self.activations_bytes)} (estimated, micro-batch of {self.micro_batch})"),
            ("loss and copies", f"{mib(self.buffers_bytes)} (estimated)"),
            ("memory in all", f"{mib(self.total_bytes)} of the device's {mib(self.device_bytes)}"),
            ("cache", f"{mib(self.cache_bytes)} to generate {self.max_seq_len:,} tokens"),
            ("window", f"{row}{self.target_len:,} target tokens"),
            ("length", length),
            ("FLOPs", f"{self.flops_per_token:.3g} a token{work}"),
            *(("updates" if i == 0 else "", str(row)) for i, row in enumerate(self.updates)),
            *(("", choice) for choice in self.choices),
        ]


def estimate_cost(config: RunConfig, device: Device) -> Cost:
    """Count a run's needs. Raw text is prepared into the cache, because the vocabulary and the epoch depend on it."""
    data = open_data(config)
    plan, _ = plan_run(config, data, device)
    objective, model = build_objective(plan.config, data.tokenizer), on_meta(plan.config.model)
    parameters, state = count_parameters(model), count_training_state(model, config.train)
    flops = count_flops(model, objective.decoder_len, objective.encoder_len).training
    return Cost(
        family=plan.config.model.kind,
        parameters=parameters.total,
        active_parameters=parameters.active,
        non_embedding_parameters=parameters.non_embedding,
        vocab_size=model.vocab_size,
        source_len=objective.encoder_len,
        target_len=objective.decoder_len,
        weights_bytes=state.weights,
        average_bytes=state.average,
        gradients_bytes=state.gradients,
        optimizer_bytes=state.optimizer,
        activations_bytes=estimate_activations(plan, objective, model),
        buffers_bytes=estimate_buffers(plan, objective, model),
        device_bytes=total_bytes(device.type),
        max_seq_len=model.max_seq_len,
        cache_bytes=count_cache_bytes(model, 1, model.max_seq_len),
        steps=plan.steps,
        tokens=plan.steps * config.train.batch_tokens if plan.steps else None,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        flops_per_token=flops // plan.seq_len,
        flops=plan.steps * plan.batch_windows * flops if plan.steps else None,
        updates=tuple(report(build_optimizer(model, plan.config.train))),
        choices=plan.reasons,
    )
