"""How likely the model itself found what was chosen, and what it would rather have had."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LogProbability:
    """Of one id that was chosen, in nats."""

    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...]
    """The likeliest ids, best first, with theirs; the chosen one is among them where it is one of them."""


@torch.inference_mode()
def log_probabilities(
    logits: Float[Tensor, "B V"], chosen: Int[Tensor, " B"], alternatives: int = 0
) -> list[LogProbability]:
    """What is ln softmax(logits) of each row's chosen id and of its `alternatives` likeliest ids? In float32.

    Give it the model's own logits, so that no setting shows, cut to the tokenizer's ids (`logits[:, :vocab_size]`).
    """
    if alternatives < 0:
        raise ValueError(f"alternatives must be 0 or more, not {alternatives}")
    logs = logits.float().log_softmax(dim=-1)
    own: list[float] = logs.gather(dim=-1, index=chosen[:, None])[:, 0].tolist()
    best = logs.topk(min(alternatives, logs.shape[-1]), dim=-1)
    return [
        LogProbability(id_, log_probability, tuple(zip(ids, values, strict=True)))
        for id_, log_probability, ids, values in zip(
            chosen.tolist(), own, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
