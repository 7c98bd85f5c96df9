"""What is asked of a model about a continuation, and what it says. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """Ask for log p(continuation | context). An empty context stands for the beginning of a text."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Scored:
    """What a model holds of a continuation."""

    log_probability: float
    """Σ log p(token | all before it), natural."""
    tokens: int
    """Of the continuation."""
    is_greedy: bool
    """Whether each of its tokens is the likeliest one: greedy decoding would have written it."""
    truncated: bool
    """Whether some token has not seen all that stands before it, because the model's window is too short."""
