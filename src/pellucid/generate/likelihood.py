"""What a model itself holds of a continuation that is given: how likely each id was, and how open the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.model.decoding import Decoding
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel

_AT_ONCE = 128
"""Ids whose logits, a vocabulary each, are held at a time."""


@dataclass(frozen=True)
class Likelihood:
    """Of each id of a continuation, in nats, under the model's own distribution p (temperature 1, no filter)."""

    surprise: tuple[float, ...]
    """-log p(id)."""
    entropy: tuple[float, ...]
    """-Σ p log p: the surprise to expect from a draw."""


@torch.inference_mode()
def likelihood(
    model: LanguageModel, prompt: Sequence[int], new: Sequence[int], *, vocab_size: int | None = None
) -> Likelihood:
    """Read the prompt and then `new`, in chunks, as generation would have read them, its rolling window included.

    An encoder-decoder reads the prompt as its source. Ids from `vocab_size` on have no share in the distribution:
    a model's vocabulary may be padded beyond its tokenizer's.
    """
    if not new:
        return Likelihood((), ())
    ids = torch.tensor([list(new)], device=model.device)
    parts: list[tuple[Tensor, Tensor]] = []
    with evaluation_mode(model):
        rows = Decoding(model, torch.tensor([list(prompt)], device=model.device), len(new))
        logits = rows.next_logits()[:, None]
        while True:
            told = rows.num_new + 1
            parts.append(_measured(logits[0, :, :vocab_size], ids[0, told - logits.shape[1] : told]))
            left = len(new) - told
            if left == 0:
                break
            given = ids[:, rows.num_new :][:, : max(1, min(left, rows.room, _AT_ONCE))]
            rows.append(given)
            logits = rows.logits(given.shape[1])
    surprise, entropy = (torch.cat(values).tolist() for values in zip(*parts, strict=True))
    return Likelihood(tuple(surprise), tuple(entropy))


def _measured(
    logits: Float[Tensor, "T V"], ids: Int[Tensor, " T"]
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """-log p of each id, and the entropy of each distribution, in float32."""
    logs = logits.float().log_softmax(dim=-1)
    surprise = -logs.gather(dim=-1, index=ids[:, None])[:, 0]
    return surprise, torch.special.entr(logs.exp()).sum(dim=-1)
