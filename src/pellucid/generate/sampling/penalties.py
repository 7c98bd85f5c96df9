"""Steps against repetition: each reads what is written and lowers the logits of ids that would repeat it.

Padding never counts as written. A step returns new logits [B, V] and leaves those it was given as they are.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.generate.written import Written


def penalise_repetition(
    logits: Float[Tensor, "B V"], written: Written, penalty: float
) -> Float[Tensor, "B V"]:
    """The logit l of each id that is written, however often, becomes l · penalty if l < 0, else l / penalty.

    The prompt counts too. The paper divides throughout, which would make negative logits likelier; `transformers`
    and we do not.
    Source: Keskar et al. 2019 (CTRL), arXiv:1909.05858, section 4.1.
    """
    index = _columns(written.ids, written.held(), logits.shape[-1])
    spare = F.pad(logits, (0, 1))
    seen = spare.gather(dim=-1, index=index)
    penalised = torch.where(seen < 0, seen * penalty, seen / penalty)
    return spare.scatter(dim=-1, index=index, src=penalised)[:, :-1]


def penalise_counts(
    logits: Float[Tensor, "B V"], written: Written, frequency: float, presence: float
) -> Float[Tensor, "B V"]:
    """The logit of an id that was generated c times becomes l - c·frequency - [c > 0]·presence.

    Only generated ids count, not the prompt's, as in vLLM and OpenAI's API, from whose reference ("Frequency and
    presence penalties") the formula is. `transformers` has neither.
    """
    index = _columns(written.ids, written.new(), logits.shape[-1])
    counts = F.pad(torch.zeros_like(logits), (0, 1))
    counts = counts.scatter_add(dim=-1, index=index, src=counts.new_ones(()).expand(index.shape))[:, :-1]
    return logits - frequency * counts - presence * (counts > 0)


def forbid_repeated_ngrams(logits: Float[Tensor, "B V"], written: Written, size: int) -> Float[Tensor, "B V"]:
    """Ids that would complete an n-gram of this size which the prompt or the output already has become -inf.

    Size 1: every id may come once.  Source: Paulus et al. 2017, arXiv:1705.04304, section 2.5 (trigrams).
    """
    ids, width = written.ids, written.ids.shape[1]
    if width < size:
        return logits
    ngrams = ids.unfold(dimension=1, size=size, step=1)
    beginning = ids[:, width + 1 - size :]  # of the n-gram that the next id completes
    repeats = (ngrams[..., :-1] == beginning[:, None]).all(dim=-1) & written.held()[:, : ngrams.shape[1]]
    forbidden = F.pad(torch.zeros_like(logits, dtype=torch.bool), (0, 1))
    forbidden = forbidden.scatter(
        dim=-1, index=_columns(ngrams[..., -1], repeats, logits.shape[-1]), value=True
    )
    return logits.masked_fill(forbidden[:, :-1], -torch.inf)


def _columns(ids: Int[Tensor, "B T"], counted: Bool[Tensor, "B T"], vocab_size: int) -> Int[Tensor, "B T"]:
    """The column of each id, or a spare one behind the last where it does not count or has no logit."""
    return torch.where(counted, ids.clamp(max=vocab_size), vocab_size)
