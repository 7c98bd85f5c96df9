"""How varied texts are, in numbers over their ids. Counts first, ratios last: long texts count for more than short.

An n-gram is n ids in a row, so the figures compare texts of one tokenizer only: four bytes repeat sooner than four
words. A figure is None where no text is long enough for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

Ids = Sequence[int]


def ngrams(ids: Ids, n: int) -> list[tuple[int, ...]]:
    """Every n ids in a row, in order: len(ids) - n + 1 of them, or none."""
    return [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]


def distinct(texts: Sequence[Ids], n: int) -> float | None:
    """distinct-n: different n-grams / all n-grams, over all texts together. 1: none comes twice.

    It falls as texts become longer or more: compare equal numbers of equally long ones. The paper divides by the
    number of ids, which differs by n - 1 a text.  Source: Li et al. 2016, arXiv:1510.03055.
    """
    found = [gram for ids in texts for gram in ngrams(ids, n)]
    return len(set(found)) / len(found) if found else None


def repetition(texts: Sequence[Ids], n: int) -> float | None:
    """rep-n: the share of n-grams that have come before in the same text, Σ (all - different) / Σ all.

    0: nothing is said twice; near 1: a loop.  Source: Welleck et al. 2019, arXiv:1908.04319 (seq-rep-n).
    """
    counts = [(len(grams), len(set(grams))) for grams in (ngrams(ids, n) for ids in texts)]
    total = sum(every for every, _ in counts)
    return sum(every - different for every, different in counts) / total if total else None


def overlap(texts: Sequence[Ids], n: int) -> float | None:
    """How alike texts are: the mean, over pairs, of 2 Σ min(count, count') / Σ (count + count') over n-grams.

    1: the same n-grams equally often, as in equal texts; 0: none in common. It asks what self-BLEU asks, of one n,
    both ways at once, and without its penalty for short texts.
    Source: Dice 1945, doi:10.2307/1932409; self-BLEU: Zhu et al. 2018, arXiv:1802.01886.
    """
    bags = [Counter(ngrams(ids, n)) for ids in texts]
    pairs = [(left, right) for left, right in combinations(bags, 2) if left or right]
    shares = [2 * (left & right).total() / (left.total() + right.total()) for left, right in pairs]
    return sum(shares) / len(shares) if shares else None


def repeated(ids: Ids, n: int) -> list[bool]:
    """Of each id, whether it is in an n-gram that has come before in the same text."""
    marks, seen = [False] * len(ids), set[tuple[int, ...]]()
    for start, gram in enumerate(ngrams(ids, n)):
        if gram in seen:
            marks[start : start + n] = [True] * n
        seen.add(gram)
    return marks
