"""Speculative decoding: several ids for one call of the model, and the distribution stays exactly its own.

A proposer drafts ids that may follow (see `drafting.py`); the model reads all of them at once, which costs little more
than reading one where its weights are what has to be moved; a rule keeps as many as it may. Good drafts save time, bad
ones cost some, and neither changes what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.drafting import Drafts, Probabilities, Proposer, draw
from pellucid.generate.written import Written
from pellucid.model.cache import Prefix
from pellucid.model.decoding import Decoding
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.seeding import uniform


@dataclass(frozen=True)
class Verified:
    """What one call of the model gave. Drafts accepted by drafts made, summed over calls, is the acceptance rate."""

    ids: list[int]
    """Accepted drafts and then one id of the model's own; or less, where the text ended."""
    num_drafted: int
    num_accepted: int
    """How many of `ids` had been drafted."""


@torch.inference_mode()
def speculate(
    model: LanguageModel,
    prompt: Int[Tensor, "1 T"],
    max_new_tokens: int,
    proposer: Proposer,
    probabilities: Probabilities,
    *,
    seed: int = 0,
    end_id: int | None = None,
    num_drafts: int = 4,
    max_drafts: int = 15,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
    known: Prefix | None = None,
    at_end: Callable[[Decoding], object] | None = None,
) -> Iterator[Verified]:
    """Yield what each call of the model gave, up to `end_id`, which comes last, or max_new_tokens ids.

    `probabilities` says what the next id is drawn from; one-hot, it makes this greedy decoding, which gives the ids
    that it gives without drafts (but for logits so near each other that rounding decides). Drawn ids follow the
    distribution that they follow without drafts, and depend on the seed and each id's position; another proposer
    draws other ids. The context rolls as it does without drafts.

    The first call is asked for num_drafts ids; two more after a call that accepted all, up to max_drafts, and one
    fewer after another. dtype, chunk, known: as for `Decoding`. at_end is handed what was read and written, which may
    hold rejected drafts at its end, however the text ends.
    Raises ValueError for more than one row; and what `probabilities` raises for a place that is reached.
    Source: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1; the number of drafts as in `transformers`.
    """
    if prompt.shape[0] != 1:
        raise ValueError(f"speculative decoding takes one row, not {prompt.shape[0]}; give each prompt alone")
    if not 1 <= num_drafts <= max_drafts:
        raise ValueError(
            f"num_drafts ({num_drafts}) must be at least 1 and at most max_drafts ({max_drafts})"
        )

    def over_all_ids(logits: Float[Tensor, "n V"], written: Written) -> Float[Tensor, "n V"]:
        p = probabilities(logits, written)  # may leave out the ids that a tokenizer has not
        return F.pad(p, (0, model.vocab_size - p.shape[1]))

    drafting = proposer.drafting(model, prompt, max_new_tokens, over_all_ids, seed)
    with evaluation_mode(model), drafting as propose:
        rows = Decoding(model, prompt, max_new_tokens, dtype=dtype, chunk=chunk, known=known)
        try:
            while (before := rows.num_new) < max_new_tokens:
                # As many as fit, with the model's own id after them, into what is asked for and into the context.
                count = min(num_drafts, rows.room, max_new_tokens - before - 1)
                drafts = propose(written_at_each(rows, 0), count) if count > 0 else _no_drafts(rows, model)
                drafted = drafts.ids.shape[0]
                rows.append(drafts.ids[None])
                logits, written = rows.logits(drafted + 1)[0], written_at_each(rows, drafted)
                target, fault = _up_to_a_fault(over_all_ids, logits, written)
                drafts = drafts.first(len(target) - 1)
                accepted = num_accepted(target, drafts, seed, before)
                if fault is not None and accepted == len(drafts.ids):
                    raise fault
                own = draw(correction(target, drafts, accepted), uniform(seed, "correct", before + accepted))
                ids = [*drafts.ids[:accepted].tolist(), own]
                if end_id in ids:
                    ids = ids[: ids.index(end_id) + 1]
                    yield Verified(ids, drafted, min(accepted, len(ids)))
                    return
                yield Verified(ids, drafted, accepted)
                rows.forget(drafted - accepted)
                rows.append(drafts.ids.new_tensor([own]))
                if drafted:
                    num_drafts = (
                        min(max_drafts, num_drafts + 2) if accepted == drafted else max(1, num_drafts - 1)
                    )
        finally:
            if at_end is not None:
                at_end(rows)


def num_accepted(target: Float[Tensor, "k+1 V"], drafts: Drafts, seed: int, position: int) -> int:
    """How many drafts may stay: id x with min(1, p(x) / q(x)), up to the first that may not.

    p, q: the target's and the draft's distribution at its place; position: of the first draft among new ids.

    The numbers drawn for a position are used again when another id is drafted there. Those of the positions after a
    rejected draft have not touched what is written, and how many ids are drafted next must not depend on them.
    """
    x = drafts.ids[:, None]
    wanted, proposed = target[:-1].gather(1, x)[:, 0], drafts.probabilities.gather(1, x)[:, 0]
    for place, (p, q) in enumerate(zip(wanted.tolist(), proposed.tolist(), strict=True)):
        if uniform(seed, "accept", position + place) * q >= p:
            return place
    return len(drafts.ids)


def correction(target: Float[Tensor, "k+1 V"], drafts: Drafts, accepted: int) -> Float[Tensor, " V"]:
    """What the id after the accepted drafts is drawn from: max(p - q, 0), not normalised; p after all of them."""
    p = target[accepted]
    if accepted == len(drafts.ids):
        return p
    rest = (p - drafts.probabilities[accepted]).clamp(min=0)
    return rest if bool(rest.any()) else p  # p = q but for rounding


def written_at_each(rows: Decoding, count: int) -> Written:
    """What was written before each of the newest `count` ids and after them: count + 1 rows."""
    text = rows.ids[0]
    missing = torch.arange(count, -1, -1, device=text.device)
    beginnings = [F.pad(text[: len(text) - left], (left, 0)) for left in range(count, -1, -1)]
    return Written(torch.stack(beginnings), len(text) - missing, rows.num_new - missing)


def _up_to_a_fault(
    probabilities: Probabilities, logits: Float[Tensor, "n V"], written: Written
) -> tuple[Float[Tensor, "m V"], ConfigError | GenerationError | None]:
    """The distribution of each place, or up to one that has none (then zeros, and why).

    Where everything is banned after a draft, it matters only if that draft is accepted.
    """
    try:
        return probabilities(logits, written), None
    except (ConfigError, GenerationError) as error:
        fault = error
    found = [logits[:0]]
    for place in range(len(logits)):
        try:
            found.append(probabilities(logits[place : place + 1], written.rows(place, place + 1)))
        except (ConfigError, GenerationError):
            break
    return torch.cat((*found, torch.zeros_like(logits[:1]))), fault


def _no_drafts(rows: Decoding, model: LanguageModel) -> Drafts:
    none = rows.ids[0, :0]
    return Drafts(none, torch.zeros((0, model.vocab_size), device=none.device))
