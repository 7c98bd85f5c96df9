"""Figures of variety: by hand, and against the plainest way to compute them."""

import random

import pytest

from pellucid.generate.diversity import distinct, ngrams, overlap, repeated, repetition

A_B = [1, 2, 1, 2, 1, 2]


def random_texts(seed, number=4, most=30, ids=5):
    draw = random.Random(seed)
    return [[draw.randrange(ids) for _ in range(draw.randrange(most))] for _ in range(number)]


def test_ngrams_are_in_order():
    assert ngrams([1, 2, 3], 2) == [(1, 2), (2, 3)]
    assert ngrams([1, 2, 3], 3) == [(1, 2, 3)]
    assert ngrams([1, 2, 3], 4) == []


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        ([A_B], 1, 2 / 6),
        ([A_B], 2, 2 / 5),
        ([A_B], 4, 2 / 3),
        ([[1, 2, 3]], 1, 1),
        ([[1, 2], [1, 2]], 1, 2 / 4),  # over all texts together
        ([[1, 2], [2, 1]], 2, 2 / 2),
        ([[1, 2], [], [3]], 2, 1),
        ([[1]], 2, None),
        ([], 1, None),
    ],
)
def test_distinct_by_hand(texts, n, expected):
    assert distinct(texts, n) == expected


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        ([A_B], 4, 1 / 3),
        ([[7] * 10], 4, 6 / 7),
        ([[1, 2, 3, 4]], 4, 0),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], 4, 0),  # what another text says is no repetition
        ([[7] * 10, [1, 2, 3, 4]], 4, 6 / 8),  # by n-grams, not by texts
        ([[1, 2, 3]], 4, None),
    ],
)
def test_repetition_by_hand(texts, n, expected):
    assert repetition(texts, n) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([[1, 2, 3], [1, 2, 3]], 1),
        ([[1, 2, 3], [1, 2, 4]], 2 * 1 / (2 + 2)),
        ([[1, 1, 1, 1], [1, 1]], 2 * 1 / (3 + 1)),  # counts matter
        ([[1, 2], [3, 4]], 0),
        ([[1, 2], [1, 2], [3, 4]], (1 + 0 + 0) / 3),
        ([[1, 2], []], 0),
        ([[1, 2]], None),
        ([[], [1]], None),
    ],
)
def test_overlap_by_hand(texts, expected):
    assert overlap(texts, 2) == expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [1, 2, 4])
def test_figures_equal_those_of_strings(seed, n):
    """Each id as a letter: substrings are found by the language's own search."""
    texts = random_texts(seed)
    words = ["".join("abcde"[i] for i in ids) for ids in texts]
    grams = [[word[at : at + n] for at in range(len(word)) if at + n <= len(word)] for word in words]

    pooled = [gram for each in grams for gram in each]
    assert distinct(texts, n) == (len(set(pooled)) / len(pooled) if pooled else None)

    again = [word.find(word[at : at + n]) < at for word in words for at in range(len(word) - n + 1)]
    assert repetition(texts, n) == (sum(again) / len(again) if again else None)

    shares = []
    for right in range(len(grams)):
        for left in range(right):
            rest, common = list(grams[right]), 0
            for gram in grams[left]:
                if gram in rest:
                    rest.remove(gram)
                    common += 1
            if grams[left] or grams[right]:
                shares.append(2 * common / (len(grams[left]) + len(grams[right])))
    assert overlap(texts, n) == (pytest.approx(sum(shares) / len(shares)) if shares else None)


def test_what_comes_again_is_marked_and_the_first_time_is_not():
    said = [1, 2, 3, 4]
    assert repeated([*said, 9, *said], 4) == [False] * 5 + [True] * 4
    assert repeated([*said, 9, 1, 2, 3], 4) == [False] * 8
    assert repeated([7] * 6, 4) == [False, True, True, True, True, True]
    assert repeated([], 4) == []
