"""Steps against repetition, on rows small enough to see; equality with transformers is in tests/parity."""

from collections import Counter

import pytest
import torch

from pellucid.generate.sampling import Written
from pellucid.generate.sampling.penalties import (
    forbid_repeated_ngrams,
    penalise_counts,
    penalise_repetition,
)

INF = float("inf")


def written(ids, lengths=None, num_new=None):
    ids = torch.tensor(ids)
    return Written(
        ids,
        None if lengths is None else torch.tensor(lengths),
        torch.tensor(num_new or [ids.shape[1]] * ids.shape[0]),
    )


def test_repetition_penalty_lowers_positive_and_negative_logits_once():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.0]])
    penalised = penalise_repetition(logits, written([[0, 1, 0, 3]]), 2.0)
    assert penalised.tolist() == [[1.0, -4.0, 1.0, 0.0]]


def test_repetition_penalty_of_one_row_leaves_the_other_row_alone():
    penalised = penalise_repetition(torch.ones(2, 3), written([[0], [2]]), 4.0)
    assert penalised.tolist() == [[0.25, 1.0, 1.0], [1.0, 1.0, 0.25]]


def test_counts_are_of_generated_ids_alone():
    """logit - count · frequency - [count > 0] · presence; the prompt is 2, 0."""
    logits = torch.zeros(1, 4)
    penalised = penalise_counts(logits, written([[2, 0, 1, 1, 0]], num_new=[3]), 0.5, 0.25)
    assert penalised.tolist() == [[-0.75, -1.25, 0.0, 0.0]]


def test_counts_equal_those_of_a_counter():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(12, (5, 30), generator=generator)
    logits, num_new = torch.randn(5, 12, generator=generator), [0, 1, 7, 29, 30]
    penalised = penalise_counts(logits, Written(ids, None, torch.tensor(num_new)), 0.3, -0.7)
    for row, new in enumerate(num_new):
        counts = Counter(ids[row, 30 - new :].tolist())
        expected = [x - 0.3 * counts[i] + 0.7 * (i in counts) for i, x in enumerate(logits[row].tolist())]
        torch.testing.assert_close(penalised[row], torch.tensor(expected))


@pytest.mark.parametrize(
    ("ids", "size", "forbidden"),
    [
        ([1, 2, 3, 1, 2], 3, {3}),
        ([1, 2, 3, 1, 2], 2, {3}),
        ([1, 2, 3, 1, 2], 1, {1, 2, 3}),
        ([1, 2, 4, 1, 2, 3, 1, 2], 3, {3, 4}),
        ([1, 1], 2, {1}),
        ([1, 2], 3, set()),
        ([1, 2], 4, set()),
        ([1, 2, 3], 3, set()),
    ],
)
def test_an_ngram_does_not_come_twice(ids, size, forbidden):
    after = forbid_repeated_ngrams(torch.zeros(1, 6), written([ids]), size)
    assert {i for i, x in enumerate(after[0].tolist()) if x == -INF} == forbidden


@pytest.mark.parametrize("padding", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "step",
    [
        lambda logits, w: penalise_repetition(logits, w, 1.7),
        lambda logits, w: penalise_counts(logits, w, 0.4, 0.2),
        lambda logits, w: forbid_repeated_ngrams(logits, w, 1),
        lambda logits, w: forbid_repeated_ngrams(logits, w, 2),
        lambda logits, w: forbid_repeated_ngrams(logits, w, 3),
    ],
    ids=["repetition", "counts", "1-grams", "2-grams", "3-grams"],
)
def test_padding_is_not_written(step, padding):
    """Each row of a padded batch gets what it gets alone."""
    rows = [[1, 2, 1], [2, 1, 2, 4, 2, 1], [3]]
    new = [2, 4, 0]
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    padded = [[padding] * (6 - len(row)) + row for row in rows]
    together = step(logits, written(padded, lengths=[3, 6, 1], num_new=new))
    for i, row in enumerate(rows):
        alone = step(logits[i : i + 1], Written(torch.tensor([row]), None, torch.tensor([new[i]])))
        assert torch.equal(together[i], alone[0])


@pytest.mark.parametrize("step", [penalise_repetition, forbid_repeated_ngrams])
def test_an_id_that_has_no_logit_is_passed_over(step):
    """A prompt may hold ids of the model that the logits have been cut of."""
    logits = torch.ones(1, 3)
    assert step(logits, written([[7, 7, 0]]), 2).tolist() == (
        [[0.5, 1.0, 1.0]] if step is penalise_repetition else [[1.0] * 3]
    )
