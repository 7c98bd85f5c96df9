"""What may or must come: biases, bans, forced ids, the earliest end."""

import pytest
import torch

from pellucid.generate.sampling import Written
from pellucid.generate.sampling.constraints import (
    add_bias,
    forbid_end_before,
    forbid_from,
    forbid_sequences,
    force,
    tables_of,
)

INF = float("inf")


def written(ids, num_new, lengths=None):
    return Written(
        torch.tensor(ids), None if lengths is None else torch.tensor(lengths), torch.tensor(num_new)
    )


def forbidden_after(ids, sequences, lengths=None):
    """The ids that may not follow, for each row."""
    rows = written(ids, [0] * len(ids), lengths)
    logits = torch.zeros(len(ids), 10)
    for table in tables_of(sequences):
        logits = forbid_sequences(logits, rows, table)
    return [{i for i, x in enumerate(row) if x == -INF} for row in logits.tolist()]


def test_a_bias_is_added_to_its_ids_in_every_row():
    biased = add_bias(torch.ones(2, 4), torch.tensor([3, 0]), torch.tensor([0.5, -100.0]))
    assert biased.tolist() == [[-99.0, 1.0, 1.0, 1.5]] * 2


def test_ids_beyond_the_vocabulary_are_forbidden():
    assert forbid_from(torch.ones(1, 4), 3).tolist() == [[1.0, 1.0, 1.0, -INF]]


def test_a_banned_id_never_comes_and_a_banned_sequence_is_never_completed():
    sequences = [(5,), (6,), (1, 2), (1, 3), (8, 1, 4)]
    assert forbidden_after([[9, 1], [9, 2], [8, 1]], sequences) == [{5, 6, 2, 3}, {5, 6}, {5, 6, 2, 3, 4}]


def test_a_sequence_longer_than_what_is_written_is_not_completed():
    assert forbidden_after([[1]], [(0, 1, 4)]) == [set()]


def test_padding_completes_no_sequence():
    assert forbidden_after([[0, 0, 1], [0, 0, 1]], [(0, 1, 4)], lengths=[1, 2]) == [set(), {4}]


def test_a_sequence_banned_twice_stays_banned():
    assert forbidden_after([[1, 2]], [(3,), (3,), (2, 3), (2, 3)]) == [{3}]


def test_the_end_is_forbidden_until_there_are_enough_new_ids():
    after = forbid_end_before(torch.ones(3, 3), written([[0] * 5] * 3, [0, 2, 3]), end_id=1, min_new_tokens=3)
    assert after.tolist() == [[1.0, -INF, 1.0], [1.0, -INF, 1.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("first", "chosen"), [(0, [4, 2, None, None]), (1, [None, 4, 2, None])])
def test_each_row_is_forced_by_its_own_count(first, chosen):
    logits = torch.linspace(-1, 1, 5).expand(4, -1)
    after = force(logits, written([[0] * 3] * 4, [0, 1, 2, 3]), torch.tensor([4, 2]), first)
    for row, expected in zip(after, chosen, strict=True):
        if expected is None:
            assert torch.equal(row, logits[0])
        else:
            assert row.tolist() == [0.0 if i == expected else -INF for i in range(5)]
