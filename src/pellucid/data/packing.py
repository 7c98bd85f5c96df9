"""Documents → rows of T targets with little left free: best-fit packing, for models that see one document at a time.

A document is cut only where it is longer than a row: into pieces of T targets, and one of what is left. The pieces
go into rows by best-fit decreasing: the longest first, each into the row with the least room that still holds it,
or into a new one. Since documents do not see each other, what else stands in a row does not matter, so the rows
are a pure function of the lengths and T, the same in every epoch.
Source: Ding et al. 2024, Fewer Truncations Improve Language Modeling, arXiv:2404.10830, sec. 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pellucid.data.shards import Ids, Split


def best_fit_decreasing(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """The row of each piece, given lengths in [1, room]; rows are numbered by the first piece in them.

    Rows with equal room are interchangeable, so pieces of one length are placed together: the row that is chosen
    stays the best one until it has no room for another. Cost: one step of Python for each length and each room
    that its pieces find, at most one a piece.
    """
    counts = np.bincount(lengths, minlength=room + 1).tolist()
    by_room: defaultdict[int, list[int]] = defaultdict(list)  # rows that are neither empty nor full
    rooms = 0  # bit r is set where by_room[r] has a row
    placed: list[int] = []
    num_rows = 0
    for length in range(room, 0, -1):
        left = counts[length]
        while left:
            fitting = rooms >> length
            space = length + (fitting & -fitting).bit_length() - 1 if fitting else room
            each = min(space // length, left)
            if fitting:
                rows = by_room[space]
                chosen = rows[-(left // each) :]
                del rows[-(left // each) :]
                if not rows:
                    rooms ^= 1 << space
            else:
                chosen = list(range(num_rows, num_rows + left // each))
                num_rows += len(chosen)
            placed += chosen * each
            left -= len(chosen) * each
            if rest := space - length * each:
                by_room[rest] += chosen
                rooms |= 1 << rest
    longest_first = np.argsort(-lengths, kind="stable")
    found = np.empty(len(lengths), dtype=np.int64)
    found[longest_first] = placed
    _, firsts = np.unique(found, return_index=True)
    numbers = np.empty(num_rows, dtype=np.int64)
    numbers[np.argsort(firsts)] = np.arange(num_rows)
    return numbers[found]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a section, each of one piece or more. Memory: 12 bytes a piece, 8 a row."""

    starts: NDArray[np.int64]
    """[pieces], row after row: where a piece's targets begin, counted over all shards of the split."""
    lengths: NDArray[np.int32]
    """[pieces]: how many targets it has."""
    bounds: NDArray[np.int64]
    """[rows + 1]: row r has the pieces bounds[r] to bounds[r + 1]."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def pieces(self, row: int) -> list[tuple[int, int]]:
        """The targets [start, stop) of each piece of a row, in reading order."""
        inside = slice(*self.bounds[row : row + 2].tolist())
        starts = self.starts[inside]
        return list(zip(starts.tolist(), (starts + self.lengths[inside]).tolist(), strict=True))


class Packing:
    """The documents of a split in rows of T targets.

    Every id of the split is a target once where its documents end with the end-of-text id: a document's first id
    is then told from that of the document before it, as in running text and as generation begins. Where they do
    not (a tokenizer without one, a single text), the first id of a document has nothing to be told from and is
    no target. A piece that goes on with a document is told from the id before it.

    Rows are made by section: a shard, or several consecutive ones where one would not fill a row; what is left at
    the end belongs to the last. So a section has two rows or more, unless the whole split has not. A document that
    goes on from one section into the next is cut there.
    """

    def __init__(self, split: Split, seq_len: int, end_of_text_id: int | None) -> None:
        self.seq_len = seq_len
        self._tokens = [0, *accumulate(split.shard_tokens)]
        self._starts = split.starts or ((np.empty(0, dtype=np.uint64),) * len(split.shards))
        self.opening_id = end_of_text_id if _ends_with(split, end_of_text_id) else None
        """What comes before the split's first document; None where first ids are no targets."""
        targets = [  # at least: the first document of all need not have its start among them
            tokens - (len(starts) + (shard == 0) if self.opening_id is None else 0)
            for shard, (tokens, starts) in enumerate(zip(split.shard_tokens, self._starts, strict=True))
        ]
        self._sections = _sections(targets, seq_len)
        self._rows: dict[int, Rows] = {}

    @cached_property
    def row_counts(self) -> tuple[int, ...]:
        """The number of rows of each section. Packs them all."""
        return tuple(len(self.rows(section)) for section in range(self.num_sections))

    @property
    def num_sections(self) -> int:
        return len(self._sections)

    def rows(self, section: int) -> Rows:
        """A section's rows, by the first piece in each; made once."""
        if section not in self._rows:
            self._rows[section] = self._pack(*self._pieces(self._sections[section]))
        return self._rows[section]

    def _pieces(self, shards: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the pieces of a section begin, and their lengths, in reading order."""
        begin, end = self._tokens[shards.start], self._tokens[shards.stop]
        inside = [self._starts[shard].astype(np.int64) + self._tokens[shard] for shard in shards]
        edges = np.unique(np.concatenate([np.array([begin, end], dtype=np.int64), *inside]))
        firsts, stops = edges[:-1].copy(), edges[1:]
        if self.opening_id is None:
            goes_on = begin > 0 and not any(len(starts) and starts[0] == begin for starts in inside)
            firsts[int(goes_on) :] += 1
        cuts = -(-(stops - firsts) // self.seq_len)
        number = np.arange(cuts.sum()) - np.repeat(np.cumsum(cuts) - cuts, cuts)
        starts = np.repeat(firsts, cuts) + number * self.seq_len
        return starts, np.minimum(np.repeat(stops, cuts) - starts, self.seq_len)

    def _pack(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rows:
        row_of = best_fit_decreasing(lengths, self.seq_len)
        by_row = np.argsort(row_of, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
        return Rows(starts[by_row], lengths[by_row].astype(np.int32), bounds)


def read_piece(split: Split, start: int, stop: int, opening_id: int | None) -> tuple[Ids, Ids]:
    """Inputs and targets of a piece: its ids [start, stop), and the same one id earlier."""
    if start > 0:
        ids = split.read(start - 1, stop)
        return ids[:-1], ids[1:]
    assert opening_id is not None, "without an end of text, id 0 is no target"
    ids = split.read(0, stop)
    return np.concatenate([np.array([opening_id], dtype=ids.dtype), ids[:-1]]), ids


def pack(split: Split, seq_len: int, end_of_text_id: int | None) -> Packing:
    """The split's packing, made once for as long as the split lives: planning, training and resuming share it."""
    made = _PACKINGS.setdefault(split, {})
    key = seq_len, end_of_text_id
    if key not in made:
        made[key] = Packing(split, seq_len, end_of_text_id)
    return made[key]


_PACKINGS: WeakKeyDictionary[Split, dict[tuple[int, int | None], Packing]] = WeakKeyDictionary()


def _ends_with(split: Split, end_of_text_id: int | None) -> bool:
    """Whether documents end with this id. The first one tells: `prepare` marks all or none."""
    if end_of_text_id is None or split.tokens == 0:
        return False
    begins = (
        begin + int(start)
        for begin, starts in zip(accumulate(split.shard_tokens, initial=0), split.starts, strict=False)
        for start in starts[:2]
    )
    end = next((begin for begin in begins if begin > 0), split.tokens)
    return int(split.read(end - 1, end)[0]) == end_of_text_id


def _sections(targets: Sequence[int], seq_len: int) -> list[range]:
    """The shards of each section: more targets than a row has, in as few consecutive shards as that takes."""
    cuts, gathered = [0], 0
    for shard, count in enumerate(targets):
        gathered += count
        if gathered > seq_len:
            cuts.append(shard + 1)
            gathered = 0
    if len(cuts) == 1:
        cuts.append(0)
    cuts[-1] = len(targets)
    return [range(first, stop) for first, stop in pairwise(cuts)]
