"""Span corruption (T5): spans of a text are cut out, and the model says what stood there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pellucid.data.objectives.base import ENCODER_DECODER, Objective, ObjectiveBase, required_start_id
from pellucid.data.objectives.text_to_text import AnyIds, Row, RowShape, TextToText
from pellucid.runtime.seeding import derive, permutation
from pellucid.tokenizers import END_OF_TEXT, Tokenizer


def sentinel_names(count: int) -> tuple[str, ...]:
    """The first `count` sentinels, to be added as `data.tokenizer.special_tokens`: `<extra_id_0>`, …"""
    return tuple(f"<extra_id_{number}>" for number in range(count))


class SpanCorruptionConfig(ObjectiveBase):
    """Cut spans out of every window, each marked by a sentinel; the target is the spans."""

    trains = (ENCODER_DECODER,)
    kind: Literal["span_corruption"] = "span_corruption"
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """The part of the ids that is cut out."""
    mean_span_length: float = Field(default=3.0, ge=1)
    """Ids of a span, in the mean."""

    def sentinels(self, seq_len: int) -> int:
        """How many sentinels windows of so many ids need: one a span, and a final one."""
        return noise(seq_len, self.noise_density, self.mean_span_length)[1] + 1

    def obstacle(self, *, seq_len: int, special_tokens: Collection[str]) -> str | None:
        """Too few sentinels, or no room in seq_len for the target."""
        marks = 1 + (END_OF_TEXT in special_tokens)
        if seq_len < 2 or sum(noise(seq_len, self.noise_density, self.mean_span_length)) + marks > seq_len:
            return (
                f"train.seq_len ({seq_len}; left out: model.max_seq_len): data.objective.kind 'span_corruption' makes "
                "targets (the spans, a sentinel each, and what ends them) longer than such a window; raise it, lower "
                f"data.objective.noise_density ({self.noise_density}), or raise data.objective.mean_span_length "
                f"({self.mean_span_length})"
            )
        wanted = sentinel_names(self.sentinels(seq_len))
        missing = sum(name not in special_tokens for name in wanted)
        if not missing:
            return None
        return (
            f"data.tokenizer.special_tokens: data.objective.kind 'span_corruption' needs {len(wanted)} sentinels "
            f"for windows of {seq_len} ids, {wanted[0]} to {wanted[-1]}, and the tokenizer lacks {missing} of "
            f"them; give data.tokenizer.special_tokens='{_as_list(wanted)}' (in Python: "
            f"pellucid.data.objectives.sentinel_names({len(wanted)}))"
        )

    def build(
        self,
        *,
        tokenizer: Tokenizer,
        is_encoder_decoder: bool,
        seq_len: int,
        start_id: int | None = None,
        seed: int = 0,
    ) -> Objective:
        """Raises ConfigError when the tokenizer has too few sentinels, or seq_len no room for the target."""
        self.require_model(is_encoder_decoder=is_encoder_decoder)
        start = required_start_id(start_id)
        self.require_possible(seq_len=seq_len, special_tokens=tokenizer.special_tokens)
        names = sentinel_names(self.sentinels(seq_len))
        return SpanCorruption(
            seq_len,
            np.array([tokenizer.special_tokens[name] for name in names], dtype=np.int64),
            self.noise_density,
            self.mean_span_length,
            end_of_text_id=tokenizer.end_of_text_id,
            start_id=start,
            seed=seed,
        )


def _as_list(names: Sequence[str]) -> str:
    """A list to write after `special_tokens=`; of many names, the first two and the last."""
    shown = names if len(names) <= 8 else (*names[:2], "…", names[-1])
    return "[" + ", ".join(name if name == "…" else f'"{name}"' for name in shown) + "]"


class SpanCorruption(TextToText):
    """A window with spans cut out, and those spans. For the ids a b c d e f g, of which c d and g are noise:

        source   a b <0> e f <1>
        target   <0> c d <1> g <2> end

    N = seq_len ids have n = round(N · noise_density) ids of noise in k = round(n / mean_span_length) spans, so
    S = N - n + k and T = n + k + 2 are the same for every window, and no source has padding. Kept and cut spans
    take turns; a window begins with a kept one and ends with a cut one; all ways to divide the kept ids into k
    spans, and the cut ones, are equally likely. The target's last sentinel, which no span has, ends the last span,
    as in the paper's figure 2; the end-of-text id after it, with which t5's code ends targets, lets generation
    stop. A tokenizer without such an id has targets one shorter. Every id of the target has weight 1.
    Source: Raffel et al. 2020, arXiv:1910.10683, sec. 3.1.4; `random_spans_noise_mask` of google-research/t5.
    """

    purpose = "span corruption"
    fills_source = True

    def __init__(
        self,
        seq_len: int,
        sentinels: NDArray[np.int64],
        noise_density: float,
        mean_span_length: float,
        *,
        end_of_text_id: int | None,
        start_id: int,
        seed: int,
    ) -> None:
        cut, spans = noise(seq_len, noise_density, mean_span_length)
        self._end = np.array([] if end_of_text_id is None else [end_of_text_id], dtype=np.int64)
        shape = RowShape(seq_len - cut + spans, cut + spans + 1 + len(self._end), start_id)
        super().__init__(seq_len, shape, seed=seed)
        self._sentinels, self._density, self._mean = sentinels, noise_density, mean_span_length

    def row(self, ids: AnyIds, key: int) -> Row:
        cut, spans = noise(len(ids), self._density, self._mean)
        source, target = corrupt(
            ids,
            self._sentinels,
            kept=segments(len(ids) - cut, spans, derive(key, "kept")),
            cut=segments(cut, spans, derive(key, "cut")),
        )
        return source, np.concatenate([target, self._end])


def noise(length: int, density: float, mean_span_length: float) -> tuple[int, int]:
    """(ids of noise, spans) of a window of 2 ids or more: at least 1 of each, and as many kept spans as cut."""
    count = min(max(1, round(length * density)), length - 1)
    return count, min(max(1, round(count / mean_span_length)), count, length - count)


def segments(items: int, count: int, key: int) -> NDArray[np.int64]:
    """[count] lengths of at least 1 that add up to `items`, uniform among all such divisions."""
    borders = np.sort(permutation(items - 1, key)[: count - 1]) + 1
    return np.diff(borders, prepend=0, append=items)


def corrupt(
    ids: AnyIds, sentinels: NDArray[np.int64], *, kept: NDArray[np.int64], cut: NDArray[np.int64]
) -> Row:
    """Source, and target without its end, of a window that is kept[0] ids, cut[0] ids, kept[1] ids, … long."""
    spans = len(kept)
    lengths = np.stack([kept, cut], axis=1).reshape(-1)
    parts = np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1])
    marks = np.split(sentinels[: spans + 1], spans + 1)
    source = [part for pair in zip(parts[0::2], marks[:spans], strict=True) for part in pair]
    target = [part for pair in zip(marks[:spans], parts[1::2], strict=True) for part in pair]
    return np.concatenate(source), np.concatenate([*target, marks[spans]])
