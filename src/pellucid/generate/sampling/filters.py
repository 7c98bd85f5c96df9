"""Steps that shape the distribution itself, whatever is written: temperature, and which ids are kept at all.

Each takes logits [B, V], sets those of the ids that go to -inf, and never all of a row's. p = softmax(logits). What is
-inf already has no share in p, so that filters work one after another, and on a few likeliest ids alone as on all.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def keep_top_n_sigma(logits: Float[Tensor, "B V"], n: float) -> Float[Tensor, "B V"]:
    """Keeps what is at most n standard deviations (of all logits that are finite) below the largest logit.

    The same ids at any temperature.  Source: Tang et al. 2024, arXiv:2411.07641, section 3.
    """
    finite = logits.isfinite()
    count = finite.sum(dim=-1, keepdim=True)
    mean = _row_sums(torch.where(finite, logits, 0.0)) / count
    variance = _row_sums(torch.where(finite, logits - mean, 0.0).square()) / count
    return _drop(logits, logits < logits.amax(dim=-1, keepdim=True) - n * variance.sqrt())


def keep_top_p(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Keeps the fewest likeliest ids that have probability ≥ top_p together.

    Ids that tie with the last of them stay too; `transformers` cuts between them as its sort happens to lay them.
    Source: Holtzman et al. 2019, arXiv:1904.09751, section 3.1.
    """
    falling = _sorted(logits).flip(-1)
    share = falling.softmax(dim=-1).cumsum(dim=-1)
    return _drop(logits, logits < _where_reached(falling, share, top_p))


def keep_min_p(logits: Float[Tensor, "B V"], min_p: float) -> Float[Tensor, "B V"]:
    """Keeps ids with p ≥ min_p · max p, that is l ≥ max l + ln(min_p).

    Source: Nguyen et al. 2024, arXiv:2407.01082, section 3.
    """
    return _drop(logits, logits < logits.amax(dim=-1, keepdim=True) + math.log(min_p))


def keep_typical(logits: Float[Tensor, "B V"], typical_p: float) -> Float[Tensor, "B V"]:
    """Keeps the fewest ids of probability ≥ typical_p together whose surprise is nearest to the expected one.

    In the order of |-ln p - H|, where H = -Σ p ln p; so the likeliest id may go.
    Source: Meister et al. 2022, arXiv:2202.00666, section 4.
    """
    logs = logits.log_softmax(dim=-1)
    p = logs.exp()
    distance = (-logs - _row_sums(torch.special.entr(p))).abs()
    order = _order(distance)
    share = p.gather(dim=-1, index=order).cumsum(dim=-1)
    return _drop(logits, distance > _where_reached(distance.gather(dim=-1, index=order), share, typical_p))


def keep_above_epsilon(logits: Float[Tensor, "B V"], epsilon: float) -> Float[Tensor, "B V"]:
    """Keeps ids with p ≥ epsilon, and the likeliest.  Source: Hewitt et al. 2022, arXiv:2210.15191, section 2."""
    likeliest = logits.amax(dim=-1, keepdim=True)
    return _drop(logits, (logits.softmax(dim=-1) < epsilon) & (logits < likeliest))


def keep_above_eta(logits: Float[Tensor, "B V"], epsilon: float) -> Float[Tensor, "B V"]:
    """Keeps ids with p ≥ min(epsilon, √epsilon · exp(-H)), H = -Σ p ln p, and the likeliest.

    Source: Hewitt et al. 2022, arXiv:2210.15191, section 4.
    """
    p = logits.softmax(dim=-1)
    entropy = _row_sums(torch.special.entr(p))
    eta = (math.sqrt(epsilon) * (-entropy).exp()).clamp(max=epsilon)
    return _drop(logits, (p < eta) & (logits < logits.amax(dim=-1, keepdim=True)))


def _row_sums(values: Float[Tensor, "B V"]) -> Float[Tensor, "B 1"]:
    """One by one, so that rounding is the same whatever the number of rows; `sum` cuts a single row into parts."""
    return values.cumsum(dim=-1)[:, -1:]


def _where_reached(
    ordered: Float[Tensor, "B V"], share: Float[Tensor, "B V"], mass: float
) -> Float[Tensor, "B 1"]:
    """The value at which the cumulative share first reaches the mass; the last one where rounding keeps it below."""
    place = torch.searchsorted(share, share.new_full((len(share), 1), mass)).clamp(max=share.shape[-1] - 1)
    return ordered.gather(dim=-1, index=place)


def _sorted(values: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
    """Rising. On CPUs numpy does it: torch 2.13 takes 35 times as long for 50,000 values, sorting indices with them."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1))
    return values.sort(dim=-1).values


def _order(values: Float[Tensor, "B V"]) -> Int[Tensor, "B V"]:
    """The indices that sort them; eight times as fast by numpy on CPUs."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.argsort(values.detach().numpy(), axis=-1))
    return values.argsort(dim=-1)


def _drop(logits: Float[Tensor, "B V"], gone: Tensor) -> Float[Tensor, "B V"]:
    return torch.where(gone, -torch.inf, logits)
