"""What holds for any documents in any shards: each id is learned once, from the one before it, and rows fit best."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.batch import Batch
from pellucid.data.objectives.causal import PackedCausal
from pellucid.data.packing import Packing, best_fit_decreasing
from pellucid.data.shards import Split

END = 9999
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


def split_of(lengths: list[int], cuts: list[int], *, is_marked: bool) -> tuple[Split, list[list[int]]]:
    """Documents of so many ids, no two alike but their ends, in shards of these lengths and one of what is left."""
    flat = np.arange(sum(lengths), dtype=np.uint16)
    starts = np.cumsum([0, *lengths])
    if is_marked:
        flat[starts[1:] - 1] = END
    borders = [0, *(int(cut) for cut in np.cumsum(cuts) if cut < len(flat)), len(flat)]
    shards = tuple(flat[begin:end] for begin, end in pairwise(borders))
    begins = starts[:-1]
    inside = tuple(
        (begins[(begins >= begin) & (begins < end)] - begin).astype(np.uint64)
        for begin, end in pairwise(borders)
    )
    documents = [flat[begin:end].tolist() for begin, end in pairwise(starts.tolist())]
    return Split("train", shards, inside), documents


@st.composite
def texts(draw: st.DrawFn) -> tuple[Split, list[list[int]], bool]:
    is_marked = draw(st.booleans())
    cuts = draw(st.lists(st.integers(1, 60), max_size=6))
    return (*split_of(draw(LENGTHS), cuts, is_marked=is_marked), is_marked)


def pieces_of(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of every piece; padding, numbers and places are checked on the way."""
    found: list[tuple[list[int], list[int]]] = []
    for batch in batches:
        for row in range(len(batch.targets)):
            documents, positions = batch.documents[row].tolist(), batch.positions[row].tolist()
            filled = sum(document >= 0 for document in documents)
            assert batch.weights[row].tolist() == [1.0] * filled + [0.0] * (len(documents) - filled)
            assert documents[filled:] == [-1] * (len(documents) - filled)
            assert not batch.inputs[row, filled:].any()
            assert not batch.targets[row, filled:].any()
            lengths = Counter(documents[:filled])
            assert documents[:filled] == [n for n in range(len(lengths)) for _ in range(lengths[n])]
            assert positions[:filled] == [place for n in range(len(lengths)) for place in range(lengths[n])]
            ends = np.cumsum([0, *(lengths[n] for n in range(len(lengths)))]).tolist()
            found += [
                (batch.inputs[row, begin:end].tolist(), batch.targets[row, begin:end].tolist())
                for begin, end in pairwise(ends)
            ]
    return found


def learned(documents: list[list[int]], *, is_marked: bool) -> Counter[tuple[int, int]]:
    """Each id with the one that it is told from."""
    before = [END] if is_marked else []
    return Counter(pair for document in documents for pair in pairwise([*before, *document]))


@given(texts(), st.integers(1, 20), st.integers(0, 99))
def test_an_epoch_has_every_id_as_a_target_once_told_from_the_one_before_it(
    made: tuple[Split, list[list[int]], bool], seq_len: int, seed: int
) -> None:
    split, documents, is_marked = made
    objective = PackedCausal(seq_len, end_of_text_id=END)
    extents = objective.extents(split)
    if sum(extents) < 2:
        return
    order = objective.order(split, seed=seed, shuffle_shards=2)
    assert order.windows_per_epoch == sum(extents)
    for epoch in range(2):
        first = epoch * order.windows_per_epoch
        windows = [order.locate(first + number) for number in range(order.windows_per_epoch)]
        assert len({window[2:] for window in windows}) == len(windows)
        pieces = pieces_of([objective.batch(split, windows)])
        assert all(given[1:] == target[:-1] for given, target in pieces)
        found = Counter(pair for piece in pieces for pair in zip(*piece, strict=True))
        assert found == learned(documents, is_marked=is_marked)


@given(texts(), st.integers(1, 20), st.integers(1, 5), st.integers(1, 300))
def test_evaluation_has_the_same_rows_in_reading_order(
    made: tuple[Split, list[list[int]], bool], seq_len: int, batch_windows: int, max_tokens: int
) -> None:
    split, documents, is_marked = made
    objective = PackedCausal(seq_len, end_of_text_id=END)
    wanted = learned(documents, is_marked=is_marked)
    if not wanted:
        return
    batches = list(objective.evaluation_batches(split, batch_windows))
    assert {batch.targets.shape for batch in batches} == {(batch_windows, seq_len)}
    assert Counter(pair for piece in pieces_of(batches) for pair in zip(*piece, strict=True)) == wanted
    scored = [token for batch in batches for token in batch.targets[batch.weights > 0].tolist()]
    first = objective.evaluation_batches(split, batch_windows, max_tokens)
    assert [token for batch in first for token in batch.targets[batch.weights > 0].tolist()] == scored[
        :max_tokens
    ]


@given(LENGTHS, st.integers(1, 20), st.booleans())
def test_only_documents_longer_than_a_row_are_cut_and_as_seldom_as_can_be(
    lengths: list[int], seq_len: int, is_marked: bool
) -> None:
    split, documents = split_of(lengths, [], is_marked=is_marked)
    objective = PackedCausal(seq_len, end_of_text_id=END)
    if not sum(objective.extents(split)):
        return
    pieces = pieces_of(list(objective.evaluation_batches(split, 3)))
    targets = [len(document) - (not is_marked) for document in documents]
    assert len(pieces) == sum(-(-count // seq_len) for count in targets)


@given(texts(), st.integers(1, 20))
def test_every_section_has_rows_to_shuffle_unless_there_is_but_one_in_all(
    made: tuple[Split, list[list[int]], bool], seq_len: int
) -> None:
    counts = Packing(made[0], seq_len, END).row_counts
    assert len(counts) == 1 or min(counts) >= 2


@given(st.lists(st.integers(1, 25), max_size=120), st.integers(0, 10))
def test_rows_are_those_of_best_fit_decreasing_one_piece_after_the_other(
    lengths: list[int], extra: int
) -> None:
    room = max(lengths, default=1) + extra
    rows = best_fit_decreasing(np.array(lengths, dtype=np.int64), room)
    filled = np.bincount(rows, weights=lengths, minlength=0).astype(int)
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        best = bisect_left(rooms, length)
        insort(rooms, (rooms.pop(best) if best < len(rooms) else room) - length)
    assert sorted((room - filled).tolist()) == rooms
    _, firsts = np.unique(rows, return_index=True)
    assert rows[np.sort(firsts)].tolist() == list(range(len(firsts)))  # numbered by their first pieces
