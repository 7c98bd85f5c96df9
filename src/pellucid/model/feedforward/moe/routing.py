"""Which experts a token goes to, and the two losses that keep the choice healthy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Routing(NamedTuple):
    """Where N tokens go: k of X experts each. Floats are float32 (float64 for a float64 model)."""

    logits: Float[Tensor, "N X"]
    probabilities: Float[Tensor, "N X"]
    """softmax(logits): over all experts, chosen or not."""
    chosen: Int[Tensor, "N k"]
    """The k most probable experts of each token."""
    weights: Float[Tensor, "N k"]
    """What each chosen expert's output is multiplied by."""
    counts: Int[Tensor, " X"]
    """How many tokens each expert got; they add up to N · k."""


def route(logits: Float[Tensor, "N X"], top_k: int, *, normalize: bool) -> Routing:
    """Every token to its `top_k` most probable experts, weighted by those probabilities.

    With `normalize` a token's weights are divided by their sum. No expert has a capacity, so no token is
    dropped, and no noise is added: a token's experts depend on that token alone.
    The softmax is taken in float32, since bf16 would make close experts equal (float64 stays float64).
    Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 3-5 (top-k); Jiang et al. 2024, arXiv:2401.04088,
    sec. 2.1 (Mixtral: normalised, without noise).
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    probabilities = wide.softmax(dim=-1)
    weights, chosen = probabilities.topk(top_k, dim=-1)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    # By comparison: bincount's size depends on the data, so that the compiler could not trace it.
    experts = torch.arange(logits.shape[-1], device=logits.device)
    counts = (chosen.flatten()[:, None] == experts).sum(dim=0)
    return Routing(wide, probabilities, chosen, weights, counts)


def balance_loss(routing: Routing) -> Float[Tensor, ""]:
    """X · Σᵢ fᵢ · Pᵢ: k when all experts get equally many tokens; X when the same k get all, with certainty.

    fᵢ is the share of tokens that chose expert i (the shares add up to k), Pᵢ the mean probability of i.
    Only P has a gradient: experts with many tokens become less probable.
    Source: Fedus et al. 2021, arXiv:2101.03961 (Switch), eq. 4-6, there for k = 1.
    """
    shares = routing.counts.to(routing.probabilities.dtype) / routing.chosen.shape[0]
    return routing.counts.shape[0] * (shares * routing.probabilities.mean(dim=0)).sum()


def z_loss(routing: Routing) -> Float[Tensor, ""]:
    """mean(logsumexp(logits)²): keeps the router's logits small, where the softmax is precise.

    Source: Zoph et al. 2022, arXiv:2202.08906 (ST-MoE), eq. 5.
    """
    return routing.logits.logsumexp(dim=-1).square().mean()
