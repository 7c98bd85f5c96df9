"""Who proposes ids in speculative decoding: a smaller model, or the text itself.

A proposal need not be good to be used, only honest: its ids were drawn from the distribution that it names, so that
`speculative.py` can accept or reject them without changing what the target writes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import ConfigError
from pellucid.generate.written import Written
from pellucid.model.decoding import Decoding
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.seeding import uniform

Probabilities = Callable[[Float[Tensor, "n V"], Written], Float[Tensor, "n V"]]
"""What a sampling strategy draws the next id from, given logits and what was written before; it draws nothing."""


@dataclass(frozen=True, eq=False)
class Drafts:
    """Ids that may follow the text, and the distributions that they were drawn from. None at all is allowed."""

    ids: Int[Tensor, " k"]
    probabilities: Float[Tensor, "k V"]

    def first(self, count: int) -> Drafts:
        return Drafts(self.ids[:count], self.probabilities[:count])


Propose = Callable[[Written, int], Drafts]
"""At most `count` ids to follow what is written, which is one row. Called again with what came of them."""


class Proposer(Protocol):
    """Drafts for one text at a time."""

    def drafting(
        self,
        target: LanguageModel,
        prompt: Int[Tensor, "1 T"],
        max_new_tokens: int,
        probabilities: Probabilities,
        seed: int,
    ) -> AbstractContextManager[Propose]:
        """Begin a text: what proposes for the target after this prompt, until the context ends."""
        ...


class DraftModel:
    """A smaller model with the target's vocabulary, which draws as the target would.

    It reads the prompt as its own family does and has its own context, which rolls when it is full. dtype: its
    cache's, by default its weights'. Raises ConfigError when its ids cannot be the target's.
    """

    def __init__(self, model: LanguageModel, *, dtype: torch.dtype | None = None) -> None:
        self.model, self.dtype = model, dtype

    @contextmanager
    def drafting(
        self,
        target: LanguageModel,
        prompt: Int[Tensor, "1 T"],
        max_new_tokens: int,
        probabilities: Probabilities,
        seed: int,
    ) -> Generator[Propose]:
        if self.model.vocab_size != target.vocab_size:
            raise ConfigError(
                f"the draft model has {self.model.vocab_size} ids and the model it drafts for {target.vocab_size}; "
                "use a draft model that was trained with the same tokenizer"
            )
        with evaluation_mode(self.model):
            rows = Decoding(self.model, prompt, max_new_tokens, dtype=self.dtype)

            def propose(written: Written, count: int) -> Drafts:
                follow(rows, written)
                return _draw_drafts(rows, written, count, probabilities, seed)

            yield propose


def follow(rows: Decoding, written: Written) -> None:
    """Take back the drafts that were rejected and append what was written in their place."""
    num_new = int(written.num_new)
    new, mine = (
        ids[:, ids.shape[1] - count :] for ids, count in ((written.ids, num_new), (rows.ids, rows.num_new))
    )
    both = min(new.shape[1], mine.shape[1])
    agree = int((new[0, :both] == mine[0, :both]).cumprod(dim=0).sum())
    kept = max(0, min(agree, num_new - 1))  # the newest is always appended, so that there is one to read
    rows.forget(rows.num_new - kept)
    rows.append(new[:, kept:])


def _draw_drafts(
    rows: Decoding, written: Written, count: int, probabilities: Probabilities, seed: int
) -> Drafts:
    logits, drawn_from = rows.next_logits(), list[Tensor]()
    while True:
        try:
            p = probabilities(logits, written)
        except ConfigError:  # nothing may follow these drafts, which the target may well not accept
            break
        new = draw(p[0], uniform(seed, "draft", int(written.num_new)))
        column = written.ids.new_full((1, 1), new)
        rows.append(column)
        written = Written(torch.cat((written.ids, column), dim=1), None, written.num_new + 1)
        drawn_from.append(p)
        # To read on without room would forget ids that may have to be taken back.
        if len(drawn_from) == count or rows.room < 0:
            break
        logits = rows.next_logits()
    ids = written.ids[0, written.ids.shape[1] - len(drawn_from) :]
    return Drafts(ids, torch.cat((logits[:0], *drawn_from)))


class NgramLookup:
    """What followed the text's last ids where they stood before: no model, only a search.

    The last max_ngram ids are looked for earlier in the text (for an encoder-decoder: in the source, then the
    target), then one fewer, down to min_ngram. Of several places the latest counts that has enough ids after it,
    else the earliest. Good where texts repeat themselves or their prompt: summaries, edits, code.  Source: Saxena
    2023, github.com/apoorvumang/prompt-lookup-decoding, which takes the earliest place.
    """

    def __init__(self, *, max_ngram: int = 3, min_ngram: int = 1) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(
                f"min_ngram ({min_ngram}) must be at least 1 and at most max_ngram ({max_ngram}); "
                "give the lengths of the shortest and the longest run of ids to look for"
            )
        self.max_ngram, self.min_ngram = max_ngram, min_ngram

    @contextmanager
    def drafting(
        self,
        target: LanguageModel,
        prompt: Int[Tensor, "1 T"],
        max_new_tokens: int,
        probabilities: Probabilities,
        seed: int,
    ) -> Generator[Propose]:
        del max_new_tokens, probabilities, seed  # nothing is drawn
        source = prompt[0, :0] if target.continues_prompt else prompt[0]

        def propose(written: Written, count: int) -> Drafts:
            ids = self.continuation(torch.cat((source, written.ids[0])), count)
            return Drafts(ids, F.one_hot(ids, target.vocab_size).float())

        yield propose

    def continuation(self, text: Int[Tensor, " T"], count: int) -> Int[Tensor, " k"]:
        """At most `count` ids that followed the text's end where it stood before."""
        length = text.shape[0]
        for n in range(min(self.max_ngram, length - 1), self.min_ngram - 1, -1):
            windows = text[:-1].unfold(0, n, 1)  # [places, n], each followed by an id at least
            ends = (windows == text[length - n :]).all(dim=1).nonzero()[:, 0] + n
            if ends.numel():
                enough = ends[ends <= length - count]
                start = int(enough[-1] if enough.numel() else ends[0])
                return text[start : start + count]
        return text[:0]


def draw(p: Float[Tensor, " V"], u: float) -> int:
    """The id at which the running sum of p first exceeds u · its total: never one of probability 0."""
    running = p.cpu().double().cumsum(dim=0)  # no accelerator's float32 sums; some have no float64
    return int(torch.searchsorted(running, u * running[-1], right=True))
