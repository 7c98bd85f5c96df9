"""Contexts and continuations as the rows that a model reads: which ids, and which of them predict which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

LONGEST_SHARED = 1024
"""Ids of a row with several continuations: beyond, attention over all of them costs what reading once saves."""
_LEAST_SHARED = 1 / 8
"""Of a context and one continuation, how much the context must be for its continuations to lie in one row."""


@dataclass(frozen=True)
class Encoded:
    """A context, which is not empty, and what is asked for after it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """Ids that are read together, [T], and the N of their columns that predict something.

    With several continuations of one context the row is the context and then each continuation; `documents` numbers
    them, 0 for the context, which is the first `shared` ids, and `positions` go on after it in each.
    """

    inputs: Ids
    columns: Ids
    """[N]: the column whose state predicts each target."""
    targets: Ids
    owners: Ids
    """[N]: which request each target belongs to."""
    is_cut: bool = False
    """Whether something before the targets is left out."""
    source: Ids | None = None
    """What an encoder reads."""
    positions: Ids | None = None
    documents: Ids | None = None
    shared: int = 0

    @property
    def size(self) -> int:
        return len(self.inputs) + (0 if self.source is None else len(self.source))


def read_apart(number: int, request: Encoded, window: int, *, start_id: int | None = None) -> Iterator[Row]:
    """The row of a single request; several where its continuation is longer than the window.

    start_id: of an encoder-decoder, which reads the context as its source and the continuation after this id.
    """
    context = request.context
    before, source, is_cut = context, None, False
    if start_id is not None:
        before, source, is_cut = (start_id,), _array(context[-window:]), len(context) > window
    whole = _array((*before, *request.continuation))
    for first in range(len(before), len(whole), window):
        end = min(len(whole), first + window)
        begin = max(0, end - 1 - window)
        columns = np.arange(first - 1, end - 1) - begin
        yield Row(
            inputs=whole[begin : end - 1],
            columns=columns,
            targets=whole[first:end],
            owners=np.full(end - first, number),
            is_cut=is_cut or begin > 0,
            source=source,
        )


def read_together(requests: Sequence[Encoded], window: int, longest: int) -> Iterator[Row]:
    """Rows of a decoder's requests, those of one context together as far as they fit into `longest` ids."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        by_context.setdefault(request.context, []).append(number)
    for context, numbers in by_context.items():
        for together in _fitting(len(context), numbers, requests, min(window, longest)):
            if len(together) == 1:
                yield from read_apart(together[0], requests[together[0]], window)
            else:
                yield _shared(context, {number: requests[number].continuation for number in together})


def _fitting(
    shared: int, numbers: Sequence[int], requests: Sequence[Encoded], longest: int
) -> Iterator[list[int]]:
    """The requests of a context, divided into those of one row each."""
    together: list[int] = []
    size = shared
    for number in numbers:
        own = len(requests[number].continuation) - 1
        pays = shared >= _LEAST_SHARED * (shared + own)
        if together and not (pays and size + own <= longest):
            yield together
            together, size = [], shared
        together.append(number)
        size += own
    yield together


def _shared(context: tuple[int, ...], continuations: dict[int, tuple[int, ...]]) -> Row:
    inputs, positions, documents = [_array(context)], [np.arange(len(context))], [np.zeros(len(context))]
    columns, owners = list[Ids](), list[Ids]()
    end = len(context)
    for place, (number, ids) in enumerate(continuations.items(), start=1):
        own = len(ids) - 1  # the last id predicts nothing; the context's last one predicts the first
        inputs.append(_array(ids[:-1]))
        positions.append(len(context) + np.arange(own))
        documents.append(np.full(own, place))
        columns.append(np.concatenate(([len(context) - 1], end + np.arange(own))))
        owners.append(np.full(len(ids), number))
        end += own
    return Row(
        inputs=np.concatenate(inputs),
        columns=np.concatenate(columns),
        targets=np.concatenate([_array(ids) for ids in continuations.values()]),
        owners=np.concatenate(owners),
        positions=np.concatenate(positions),
        documents=np.concatenate(documents).astype(np.int64),
        shared=len(context),
    )


def _array(ids: Sequence[int]) -> Ids:
    return np.asarray(ids, dtype=np.int64)
