"""Chooser: logits → the next id of each row, by draws that do not depend on the rows beside it.

Each row has a seed and draws one number u in [0, 1) for each id, a pure function of (seed, how many ids are new). The
id is the first whose cumulative probability exceeds u: nothing is a stream, so that a row chooses alike alone, in any
batch, and after others have been dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.sampling import order
from pellucid.generate.sampling.config import SamplingConfig
from pellucid.generate.written import Written
from pellucid.runtime.seeding import uniform


class Candidates(NamedTuple):
    """The logits that are left of each row after all steps."""

    logits: Float[Tensor, "B K"]
    ids: Int[Tensor, "B K"] | None
    """Whose they are, rising; None: those of all ids."""


class Chooser:
    """Chooses by a SamplingConfig for rows with these seeds, one each.

    `vocab_size`: the tokenizer's, beyond which no id is chosen; `end_id`: its end of text. Raises ConfigError for
    settings that name ids which the vocabulary has not.
    """

    def __init__(
        self,
        config: SamplingConfig,
        seeds: Sequence[int],
        *,
        vocab_size: int | None = None,
        end_id: int | None = None,
    ) -> None:
        if vocab_size is not None:
            config.check(vocab_size)
        self.config, self.seeds, self._vocab_size = config, list(seeds), vocab_size
        self._edits = order.edits(config, end_id)
        self._wide, self._narrow = order.before_top_k(config), order.after_top_k(config)

    def choose(self, logits: Float[Tensor, "B V"], written: Written) -> Int[Tensor, " B"]:
        """The next id of every row: the likeliest at temperature 0, else a draw from `probabilities`.

        Raises GenerationError for logits that are NaN or infinite, ConfigError where the settings leave no id.
        """
        if len(logits) != len(self.seeds):
            raise ValueError(f"there are {len(self.seeds)} seeds and {len(logits)} rows of logits")
        left = self._candidates(logits, written)
        if self.config.temperature == 0:
            best, index = left.logits.max(dim=-1)
            sound = best.isfinite()
        else:
            cumulative = _cumulative(left.logits)
            sound = cumulative[:, -1] > 0
            index = invert(cumulative, self.uniforms(written))
        if not sound.all():
            raise _no_choice(self.config, logits[:, : self._vocab_size])
        index = index.to(logits.device)
        return index if left.ids is None else left.ids.gather(dim=1, index=index[:, None])[:, 0]

    def probabilities(self, logits: Float[Tensor, "B V"], written: Written) -> Float[Tensor, "B V"]:
        """What `choose` draws from; at temperature 0 all of it lies on the id that it takes.

        The rows need not be those of the seeds. Raises as `choose` does.
        """
        left = self._candidates(logits, written)
        if self.config.temperature == 0:
            best, index = left.logits.max(dim=-1, keepdim=True)
            p, sound = torch.zeros_like(left.logits).scatter(1, index, 1.0), best.isfinite()
        else:
            p = left.logits.softmax(dim=-1)
            sound = p[:, 0] >= 0
        if not sound.all():
            raise _no_choice(self.config, logits[:, : self._vocab_size])
        ids = torch.arange(p.shape[1], device=p.device).expand(p.shape) if left.ids is None else left.ids
        return p.new_zeros(logits.shape).scatter(dim=1, index=ids, src=p)

    def uniforms(self, written: Written) -> Float[Tensor, " B"]:
        """The number in [0, 1) that each row draws its next id by, in float64 on the CPU."""
        rows = zip(self.seeds, written.num_new.tolist(), strict=True)
        return torch.tensor([uniform(seed, "sampling", place) for seed, place in rows], dtype=torch.float64)

    def keep(self, rows: Int[Tensor, " B_new"] | Sequence[int]) -> None:
        """Row i goes on with the seed of row rows[i], as in `Decoding.keep`."""
        self.seeds = [self.seeds[row] for row in torch.as_tensor(rows).tolist()]

    def _candidates(self, logits: Float[Tensor, "B V"], written: Written) -> Candidates:
        logits = logits[:, : self._vocab_size].float()
        for step in self._edits:
            logits = step(logits, written)
        if self.config.temperature == 0:
            return Candidates(logits, None)
        for each in self._wide:
            logits = each(logits)
        top_k, ids = self.config.top_k, None
        if top_k is not None and top_k < logits.shape[1]:
            logits, ids = likeliest(logits, top_k)
        for each in self._narrow:
            logits = each(logits)
        return Candidates(logits, ids)


def likeliest(logits: Float[Tensor, "B V"], count: int) -> Candidates:
    """The `count` < V likeliest ids of each row and those that tie with the last: what top-k leaves, without the rest.

    Steps after top-k then work on 50 logits, not 50,000. Where rows have unequally many ties, -inf fills up.
    """
    top = logits.topk(count + 1, dim=-1)
    threshold = top.values[:, count - 1 : count]
    ids = top.indices[:, :count]
    if (top.values[:, count:] == threshold).any():
        ties = int((logits >= threshold).sum(dim=-1).max())
        ids = logits.topk(ties, dim=-1).indices
    ids = ids.sort(dim=-1).values
    kept = logits.gather(dim=-1, index=ids)
    return Candidates(torch.where(kept < threshold, -torch.inf, kept), ids)


def invert(cumulative: Float[Tensor, "B K"], u: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The first place where the cumulative weights exceed u · their total, u in [0, 1).

    Weights need not add up to 1. A place whose weight is 0 does not exceed what comes before it, so it is never the
    first; and u · total rounds to less than the total, as 1 - u is at least 2⁻⁵³, so there always is one.
    """
    total = cumulative[:, -1:]
    return torch.searchsorted(cumulative, u.to(cumulative)[:, None] * total, right=True)[:, 0].clamp(
        max=cumulative.shape[1] - 1  # NaN has no place
    )


def _cumulative(logits: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Cumulative probabilities in float64; on the CPU where the device has no float64."""
    if logits.device.type == "mps":
        logits = logits.cpu()
    return logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)


def _no_choice(config: SamplingConfig, logits: Float[Tensor, "B V"]) -> ConfigError | GenerationError:
    """Why a row has no id to choose: the model's fault, or the settings'."""
    broken = (logits.isnan() | logits.isposinf()).any(dim=-1) | logits.isneginf().all(dim=-1)
    if broken.any():
        return GenerationError(
            f"the model's logits are NaN or infinite (row {int(broken.int().argmax())}): its weights are, or they are "
            "too large for the number format; try --dtype fp32, or an earlier checkpoint"
        )
    fields = type(config).model_fields
    named = [name for name in order.EDITS if getattr(config, name) != fields[name].default]
    return ConfigError(f"the settings leave no id to choose; loosen {' or '.join(named)}")
