"""What hooks are told: read-only values, one kind an event. Each is one line of metrics.jsonl."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Flag, auto
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Facts:
    event: ClassVar[str]
    step: int
    """Updates done."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: a number that is not finite, for which JSON has no word, becomes None."""
        values = {"event": self.event, **asdict(self)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class StartFacts(Facts):
    """A session of the run begins, at step 0 or where a checkpoint left it."""

    event = "start"
    run: str
    steps: int | None
    max_seconds: float | None
    parameters: int
    device: str
    precision: str
    compiled: bool
    micro_batch: int
    accumulation: int
    batch_tokens: int
    flops_per_token: int = 0
    """Of training, forward and backward; 0 in what was written before it was counted."""


@dataclass(frozen=True)
class StepFacts(Facts):
    """One step. Loss in nats a token, the gradient's norm before clipping."""

    event = "step"
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    """Tokens seen by the run so far."""
    progress: float
    """Share of the run that is done, 0 … 1."""
    elapsed_seconds: float
    step_seconds: float
    waited_seconds: float
    """Part of step_seconds spent waiting for data."""
    is_skipped: bool = False
    """Whether there was no update, because loss or gradient was not finite."""
    is_overflow: bool = False
    """Whether there was none because the gradient scaler had scaled too far, as is expected now and then."""
    is_spike: bool = False
    """Whether the loss was far above what was to be expected."""
    bundle: str | None = None
    """Where the step was written down, to be made again, as the first of some that were skipped."""


@dataclass(frozen=True)
class RollbackFacts(Facts):
    """The run went back to the checkpoint after `step`. What had been logged of the steps after it is dropped."""

    event = "rollback"
    from_step: int
    """Where it came from."""
    reason: str
    rollbacks: int
    """How often the run has gone back so far."""
    lr_factor: float
    """What rollbacks have left of the learning rate."""


@dataclass(frozen=True)
class EvaluationFacts(Facts):
    """One pass over the validation split, or over its stated first part."""

    event = "evaluation"
    val_loss: float
    perplexity: float
    bits_per_byte: float
    val_tokens: int
    is_best: bool
    seconds: float
    elapsed_seconds: float
    is_averaged: bool = False
    """Whether the averaged weights were scored, instead of those of the last update."""


@dataclass(frozen=True)
class EndFacts(Facts):
    """The session ends."""

    event = "end"
    reason: Literal["finished", "time is up", "interrupted"]
    elapsed_seconds: float
    tokens: int
    best_loss: float | None
    peak_memory_bytes: int
    waited_share: float = 0.0
    """Share of the time spent on updates in which this session waited for data, 0 … 1."""
    skipped: int = 0
    """Updates of the run that were left out because loss or gradient was not finite."""
    overflows: int = 0
    """Updates that were left out because the gradient scaler had scaled too far."""
    spikes: int = 0
    rollbacks: int = 0


class Request(Flag):
    """What a hook may ask of the loop."""

    NOTHING = 0
    SAVE = auto()
    STOP = auto()
