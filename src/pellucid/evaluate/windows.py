"""A sequence of ids read through a window that slides: every target once, with the context that it gets. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pellucid.errors import ConfigError


class Span(NamedTuple):
    """What a model reads at once of a sequence, and which targets are new in it."""

    sequence: int
    start: int
    stop: int
    """It reads the ids [start, stop), which predict those of [start + 1, stop + 1)."""
    first: int
    """The place of the first target that is scored here; those before it were, from more context."""


def spans(lengths: Sequence[int], *, unscored: int, window: int, stride: int) -> Iterator[Span]:
    """The spans of sequences of so many ids, the first `unscored` of which (at least one) are context alone.

    A window reads `window` ids and moves on by `stride`. Every other id is a target once, predicted from at least
    window - stride + 1 ids where so many come before it. stride = window: the windows do not overlap.
    """
    require_stride(window, stride)
    for number, length in enumerate(lengths):
        start, stop, first = 0, min(window, length - 1), max(1, unscored)
        while first < length:
            if first <= stop:  # not of a window so short that it has context alone
                yield Span(number, start, stop, first)
            start, first = start + stride, max(first, stop + 1)
            stop = min(start + window, length - 1)


def require_stride(window: int, stride: int) -> None:
    """Raise ConfigError for a stride that would score nothing, or leave ids out."""
    if not 1 <= stride <= window:
        raise ConfigError(
            f"--stride {stride}: wanted 1 to {window}, the window's length; a longer one would leave text out"
        )
