"""How much of a text stands in a training split: against Python's own search in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.data import overlap
from pellucid.data.overlap import Overlap, find_overlap
from pellucid.data.shards import Split


def ids(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8).astype(np.uint16)


def some_text(seed: int, length: int) -> bytes:
    return np.random.default_rng(seed).integers(97, 123, size=length).astype(np.uint8).tobytes()


def test_a_text_of_its_own_is_not_found_and_a_copied_one_is():
    training = some_text(0, 5000)
    split = Split("train", (ids(training),))
    assert find_overlap([ids(some_text(1, 3000))], split, bytes_per_token=1).found == 0
    copied = find_overlap([ids(training[700:2300])], split, bytes_per_token=1)
    assert copied.share == 1
    assert copied.is_whole


def test_the_share_is_that_of_the_spans_that_are_there():
    """Every span is drawn where there are fewer than SAMPLES, so the share can be counted by hand."""
    training, own = some_text(2, 4000), some_text(3, 200)
    text = training[1000:1300] + own
    found = find_overlap([ids(text)], Split("train", (ids(training),)), bytes_per_token=1)
    spans = [text[i : i + 100] for i in range(len(text) - 99)]
    assert found.spans == len(spans)
    assert found.found == sum(span in training for span in spans) > 100


@pytest.mark.parametrize("chunk", [7, 128, 999])
def test_spans_over_borders_of_chunks_are_found_and_those_over_borders_of_shards_are_not(
    monkeypatch: pytest.MonkeyPatch, chunk: int
):
    monkeypatch.setattr(overlap, "_CHUNK", chunk)
    training = some_text(4, 3000)
    text = ids(training[1400:1600])
    assert find_overlap([text], Split("train", (ids(training),)), bytes_per_token=1).share == 1
    cut = find_overlap(
        [text], Split("train", (ids(training[:1500]), ids(training[1500:]))), bytes_per_token=1
    )
    assert 0 < cut.found < cut.spans


def test_short_documents_are_spans_of_their_own_and_tiny_ones_are_left_out():
    """As training has them: with a mark between two documents, here 0."""
    lines = [some_text(seed, 40) for seed in range(30)]
    training = Split("train", (ids(b"\0".join(lines)),))
    strangers = [ids(some_text(seed, 40)) for seed in range(100, 110)]
    found = find_overlap([*map(ids, lines), *strangers], training, bytes_per_token=1)
    assert (found.spans, found.found) == (40, 30)
    longer = some_text(50, 130)
    mixed = find_overlap([ids(longer), ids(lines[0])], training, bytes_per_token=1)
    assert (mixed.spans, mixed.found) == (31 + 1, 1)
    for tiny in (lines[0][:24], b""):
        assert find_overlap([ids(tiny)], training, bytes_per_token=1) == Overlap(0, 0, is_whole=True)
    assert find_overlap([], training, bytes_per_token=1).share is None


def test_a_span_that_is_drawn_twice_counts_twice():
    """30 times one line that was trained on and 10 others that were not: three quarters of the text."""
    line = some_text(6, 100)
    others = [some_text(seed, 100) for seed in range(20, 30)]
    documents = [*[ids(line)] * 30, *map(ids, others)]
    found = find_overlap(documents, Split("train", (ids(line),)), bytes_per_token=1)
    assert (found.spans, found.share) == (40, 0.75)


def test_it_says_when_it_did_not_look_everywhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overlap, "MAX_TOKENS", 1000)
    training = some_text(5, 3000)
    found = find_overlap([ids(training[2000:2300])], Split("train", (ids(training),)), bytes_per_token=1)
    assert not found.is_whole
    assert found.found == 0
    assert found.share is None  # it may stand in the rest
    early = find_overlap([ids(training[800:1300])], Split("train", (ids(training),)), bytes_per_token=1)
    assert not early.is_whole
    assert early.share is not None
    assert 0 < early.share < 1
