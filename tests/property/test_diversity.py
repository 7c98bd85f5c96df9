"""Figures of variety: their ranges, and what cannot change them."""

from hypothesis import given
from hypothesis import strategies as st

from pellucid.generate.diversity import distinct, ngrams, overlap, repeated, repetition

texts = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=3)
lengths = st.integers(1, 5)


@given(texts, lengths)
def test_every_figure_is_a_share(texts, n):
    for figure in (distinct(texts, n), repetition(texts, n), overlap(texts, n)):
        assert figure is None or 0 <= figure <= 1


@given(texts, lengths)
def test_the_names_of_ids_and_the_order_of_texts_do_not_matter(texts, n):
    renamed = [[1000 - 7 * i for i in ids] for ids in reversed(texts)]
    assert distinct(texts, n) == distinct(renamed, n)
    assert repetition(texts, n) == repetition(renamed, n)
    first, second = overlap(texts, n), overlap(renamed, n)
    assert first == second or abs(first - second) < 1e-12


@given(st.lists(st.integers(0, 4), max_size=16), lengths)
def test_of_one_text_what_is_not_different_is_repeated(ids, n):
    different, again = distinct([ids], n), repetition([ids], n)
    assert (different is None and again is None) or abs(different + again - 1) < 1e-12


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), lengths, st.integers(2, 4))
def test_copies_overlap_wholly(ids, n, copies):
    assert overlap([ids] * copies, n) == (1 if len(ids) >= n else None)


@given(st.lists(st.integers(0, 3), max_size=16), lengths)
def test_an_id_is_marked_exactly_where_an_ngram_over_it_has_come_before(ids, n):
    grams, marks = ngrams(ids, n), repeated(ids, n)
    for place, mark in enumerate(marks):
        over = range(max(0, place - n + 1), min(place, len(grams) - 1) + 1)
        assert mark == any(grams[start] in grams[:start] for start in over)
