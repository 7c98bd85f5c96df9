"""The figures of a comparison as columns: their names, what they say, how they are written, which ends stand out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.generate.comparison import SamplingComparison
from pellucid.generate.samples import REPEATED_IDS, SHARED_IDS, Sample

NONE = "–"
"""Where there is no figure."""


def digits(value: float) -> str:
    """Three digits, and those before the point: 0.0123, 1.00, 97.7, 127, 50,257."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:,.0f}"


def ratio(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def share(value: float) -> str:
    """As a percentage."""
    return f"{value:.0%}"


@dataclass(frozen=True)
class Column:
    """One figure of every strategy."""

    key: str
    """The field of `Figures`."""
    title: str
    short: str
    """The title where there are 80 columns for all of them."""
    meaning: str
    form: Callable[[float], str]

    def values(self, comparison: SamplingComparison) -> list[float | None]:
        return [getattr(one.figures, self.key) for one in comparison.strategies]

    def written(self, value: float | None) -> str:
        return NONE if value is None else self.form(value)


COLUMNS = (
    Column("distinct_1", "distinct-1", "dist-1", "different tokens / all tokens, over all seeds", ratio),
    Column(
        "distinct_2", "distinct-2", "dist-2", "different pairs of tokens / all pairs, over all seeds", ratio
    ),
    Column("distinct_3", "distinct-3", "dist-3", "the same of three tokens in a row", ratio),
    Column(
        "repetition",
        f"repeated-{REPEATED_IDS}",
        f"rep-{REPEATED_IDS}",
        f"share of {REPEATED_IDS} tokens in a row that came before in the text",
        share,
    ),
    Column(
        "overlap",
        "overlap",
        "overlap",
        f"how alike two seeds are, by {SHARED_IDS} tokens in a row; 1: equal",
        ratio,
    ),
    Column("perplexity", "perplexity", "ppl", "under the model itself: low is what it finds likely", digits),
    Column("entropy", "entropy", "entropy", "how open the model's choices were, in nats a token", ratio),
    Column("ended", "ended", "ended", "share of texts that came to an end by themselves", share),
    Column("tokens", "tokens", "tokens", "of a text, on average", digits),
)


def standing_out(column: Column, values: Sequence[float | None]) -> tuple[int | None, int | None]:
    """The rows of the one lowest and the one highest figure as they are written; None where several share it."""
    written = [column.written(value) for value in values]
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    ends = [pick(known)[1] if known else None for pick in (min, max)]
    lowest, highest = (row if row is not None and written.count(written[row]) == 1 else None for row in ends)
    return lowest, highest


def settings_text(settings: Mapping[str, Any]) -> str:
    """`temperature 0.8, top_k 50`."""
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in settings.items()
    )


def sample_text(sample: Sample) -> str:
    """The figures of one text in a line."""
    parts = [f"{len(sample.ids)} tokens"]
    if sample.repetition is not None:
        parts.append(f"{share(sample.repetition)} repeated")
    if sample.perplexity is not None:
        parts.append(f"perplexity {digits(sample.perplexity)}")
    if sample.stop_reason == "end of text":
        parts.append("came to an end")
    return " · ".join(parts)
