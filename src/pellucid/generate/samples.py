"""Continuations measured: each text with what it repeats and what the model holds of it, and the figures of several."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pellucid.generate.diversity import distinct, overlap, repeated, repetition
from pellucid.generate.likelihood import likelihood
from pellucid.generate.text import Generation
from pellucid.model.interface import LanguageModel
from pellucid.tokenizers import Tokenizer

REPEATED_IDS = 4
"""So many ids in a row that have come before are a repetition."""
SHARED_IDS = 2
"""So many ids in a row are what two texts can have in common: longer ones, drawn texts hardly ever have."""


@dataclass(frozen=True)
class Sample:
    """One continuation."""

    seed: int
    text: str
    ids: tuple[int, ...]
    """Those of the text; the end-of-text id is left out."""
    stop_reason: str
    repeated: tuple[tuple[int, int], ...]
    """Where the text says again what it has said: [start, end) in characters."""
    repetition: float | None
    """The share of its n-grams of `REPEATED_IDS` ids that have come before."""
    surprise: float | None
    """The mean of -log p(id) in nats, under the model itself (temperature 1). None for an empty text."""
    entropy: float | None
    """The mean surprise to expect, in nats, if its ids had been drawn from the model itself."""

    @property
    def perplexity(self) -> float | None:
        """exp(surprise)."""
        return _exp(self.surprise)


@dataclass(frozen=True)
class Figures:
    """How varied texts are together. Each is defined in `diversity`; None where the texts are too short for it."""

    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    repetition: float | None
    """Inside each text."""
    overlap: float | None
    """Between texts: how alike two of them are."""
    perplexity: float | None
    """exp(mean surprise): low for what the model itself finds likely."""
    entropy: float | None
    ended: float
    """The share of texts that came to an end by themselves."""
    tokens: float
    """Ids a text, on average."""


def measure(
    model: LanguageModel, tokenizer: Tokenizer, prompt_ids: Sequence[int], written: Generation, *, seed: int
) -> Sample:
    """A generated text with what it repeats, and what the model holds of it after these ids of its prompt."""
    ids = tuple(each for each in written.ids if each != tokenizer.end_of_text_id)
    found = likelihood(model, prompt_ids, ids, vocab_size=tokenizer.vocab_size)
    return Sample(
        seed=seed,
        text=written.text,
        ids=ids,
        stop_reason=written.stop_reason,
        repeated=_spans(tokenizer, ids, repeated(ids, REPEATED_IDS)),
        repetition=repetition([ids], REPEATED_IDS),
        surprise=_mean((value, 1) for value in found.surprise),
        entropy=_mean((value, 1) for value in found.entropy),
    )


def figures(samples: Sequence[Sample]) -> Figures:
    """Those of the texts together: sums over all ids, then ratios."""
    texts = [sample.ids for sample in samples]
    return Figures(
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        distinct_3=distinct(texts, 3),
        repetition=repetition(texts, REPEATED_IDS),
        overlap=overlap(texts, SHARED_IDS),
        perplexity=_exp(_mean((sample.surprise, len(sample.ids)) for sample in samples)),
        entropy=_mean((sample.entropy, len(sample.ids)) for sample in samples),
        ended=sum(sample.stop_reason == "end of text" for sample in samples) / len(samples),
        tokens=sum(map(len, texts)) / len(texts),
    )


def _spans(tokenizer: Tokenizer, ids: Sequence[int], marks: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Marked ids as [start, end) in the characters of their text; a character belongs to the id that completes it."""
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
    spans: list[tuple[int, int]] = []
    end = 0
    for place, (number, mark) in enumerate(zip(ids, marks, strict=True), start=1):
        piece = utf8.decode(tokenizer.decode_bytes([number]), final=place == len(ids))
        start, end = end, end + len(piece)
        if mark and piece:
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, end))
    return tuple(spans)


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value) if value < 700 else math.inf


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    """The mean of values that stand for so many ids each; None where there are no ids."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return math.fsum(value * weight for value, weight in known) / total if total else None
