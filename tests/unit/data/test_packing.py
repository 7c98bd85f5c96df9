"""Documents as rows of pieces; what holds for any of them is in tests/property/test_packing.py."""

import gc
import weakref

import numpy as np
import pytest

from pellucid.data.packing import Packing, best_fit_decreasing, pack
from pellucid.data.shards import Split

END = 99


def split(*shards: list[int], starts: list[list[int]]) -> Split:
    return Split(
        "train",
        tuple(np.array(shard, dtype=np.uint16) for shard in shards),
        tuple(np.array(inside, dtype=np.uint64) for inside in starts),
    )


def rows(packing: Packing, section: int = 0) -> list[list[tuple[int, int]]]:
    return [packing.rows(section).pieces(row) for row in range(len(packing.rows(section)))]


def test_the_longest_come_first_and_the_fullest_row_that_has_room_is_best() -> None:
    lengths = np.array([3, 6, 4, 7, 5, 3, 2])
    # 7 | 6 | 5 → own rows; 4 beside 6; 3 beside 7; 3 beside 5; 2 beside the 8 of 5 + 3
    assert best_fit_decreasing(lengths, 10).tolist() == [0, 1, 1, 0, 2, 2, 2]


def test_equal_pieces_fill_a_row_before_the_next() -> None:
    assert np.bincount(best_fit_decreasing(np.full(11, 3), 10)).tolist() == [3, 3, 3, 2]
    assert best_fit_decreasing(np.array([10, 10]), 10).tolist() == [0, 1]
    assert best_fit_decreasing(np.array([], dtype=np.int64), 10).tolist() == []


def test_a_long_document_is_cut_into_full_rows_and_what_is_left_is_packed() -> None:
    text = split([*range(9), END, 20, END, 30, END], starts=[[0, 10, 12]])
    packing = Packing(text, 4, END)
    assert rows(packing) == [[(0, 4)], [(4, 8)], [(8, 10), (10, 12)], [(12, 14)]]
    assert packing.row_counts == (4,)


def test_without_an_end_of_text_first_ids_are_no_targets() -> None:
    text = split([*range(5), 10, 20, 21, 22], starts=[[0, 5, 6]])
    for end_of_text_id in (None, END):  # the tokenizer has none; it has one that this text was not given
        packing = Packing(text, 4, end_of_text_id)
        assert packing.opening_id is None
        assert rows(packing) == [[(1, 5)], [(7, 9)]]


def test_a_last_document_that_was_cut_off_leaves_the_others_marked() -> None:
    text = split([1, END, 3, 4, 5], starts=[[0, 2]])
    assert Packing(text, 4, END).opening_id == END
    assert rows(Packing(text, 4, END)) == [[(0, 2)], [(2, 5)]]
    assert Packing(split([1, END], [3, 4, 5], starts=[[0], [0]]), 4, END).opening_id == END


def test_a_split_without_document_starts_is_one_document() -> None:
    text = Split("text", (np.arange(6, dtype=np.uint16), np.arange(6, 10, dtype=np.uint16)))
    assert rows(Packing(text, 4, END)) == [[(1, 5)], [(5, 9)], [(9, 10)]]


def test_shards_that_would_not_fill_a_row_are_packed_together() -> None:
    lengths = [7, 2, 1, 1, 9, 3]
    shards = [[*range(n - 1), END] for n in lengths]
    packing = Packing(split(*shards, starts=[[0]] * 6), 3, END)
    # 7 | 2 + 1 + 1 | 9 + the last, which has no more than a row
    assert packing.num_sections == 3
    assert [sum(stop - start for row in rows(packing, n) for start, stop in row) for n in range(3)] == [
        7,
        4,
        12,
    ]
    assert min(packing.row_counts) >= 2


def test_a_document_goes_on_in_the_next_section_as_a_piece_of_its_own() -> None:
    text = split([*range(6)], [6, 7, END, 20, 21, END], starts=[[0], [3]])
    packing = Packing(text, 3, END)
    assert (rows(packing), rows(packing, 1)) == ([[(0, 3)], [(3, 6)]], [[(6, 9)], [(9, 12)]])
    packing = Packing(text, 3, None)
    # 6 has 5 before it, in the other section; 20 has nothing
    assert (rows(packing), rows(packing, 1)) == ([[(1, 4)], [(4, 6)]], [[(6, 9)], [(10, 12)]])


def test_rows_are_made_once_for_as_long_as_the_split_lives() -> None:
    text = split([*range(9), END], starts=[[0]])
    packing = pack(text, 4, END)
    assert pack(text, 4, END) is packing
    assert packing.rows(0) is packing.rows(0)
    assert pack(text, 5, END) is not packing
    assert pack(text, 4, None) is not packing
    gone = weakref.ref(text)
    del text
    gc.collect()
    assert gone() is None
    assert packing.row_counts == (3,)


@pytest.mark.parametrize("seq_len", [512, 8192])
def test_of_a_million_short_pieces_hardly_a_row_has_room_left(seq_len: int) -> None:
    lengths = np.random.default_rng(0).integers(1, seq_len // 4, 1_000_000)
    rows = best_fit_decreasing(lengths, seq_len)
    filled = np.bincount(rows, weights=lengths)
    assert filled.max() <= seq_len
    assert len(filled) <= 1.001 * lengths.sum() / seq_len
