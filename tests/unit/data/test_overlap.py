"""How much of a text stands in a training split: against Python's own search in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.data import overlap
from pellucid.data.overlap import find_overlap
from pellucid.data.shards import Split


def ids(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8).astype(np.uint16)


def some_text(seed: int, length: int) -> bytes:
    return np.random.default_rng(seed).integers(97, 123, size=length).astype(np.uint8).tobytes()


def test_a_text_of_its_own_is_not_found_and_a_copied_one_is():
    training = some_text(0, 5000)
    split = Split("train", (ids(training),))
    assert find_overlap(ids(some_text(1, 3000)), split, bytes_per_token=1).found == 0
    copied = find_overlap(ids(training[700:2300]), split, bytes_per_token=1)
    assert copied.share == 1
    assert copied.is_whole


def test_the_share_is_that_of_the_spans_that_are_there():
    """Every span is drawn where there are fewer than SAMPLES, so the share can be counted by hand."""
    training, own = some_text(2, 4000), some_text(3, 200)
    text = training[1000:1300] + own
    found = find_overlap(ids(text), Split("train", (ids(training),)), bytes_per_token=1)
    spans = {text[i : i + 100] for i in range(len(text) - 99)}
    assert found.spans == len(spans)
    assert found.found == sum(span in training for span in spans) > 100


@pytest.mark.parametrize("chunk", [7, 128, 999])
def test_spans_over_borders_of_chunks_are_found_and_those_over_borders_of_shards_are_not(
    monkeypatch: pytest.MonkeyPatch, chunk: int
):
    monkeypatch.setattr(overlap, "_CHUNK", chunk)
    training = some_text(4, 3000)
    text = ids(training[1400:1600])
    assert find_overlap(text, Split("train", (ids(training),)), bytes_per_token=1).share == 1
    cut = find_overlap(text, Split("train", (ids(training[:1500]), ids(training[1500:]))), bytes_per_token=1)
    assert 0 < cut.found < cut.spans


def test_a_short_text_is_one_span_and_an_empty_one_none():
    split = Split("train", (ids(b"the quick brown fox"),))
    assert find_overlap(ids(b"quick"), split, bytes_per_token=1).found == 1
    assert find_overlap(ids(b"quirk"), split, bytes_per_token=1).found == 0
    assert find_overlap(ids(b""), split, bytes_per_token=1).spans == 0


def test_it_says_when_it_did_not_look_everywhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overlap, "MAX_TOKENS", 1000)
    training = some_text(5, 3000)
    found = find_overlap(ids(training[2000:2300]), Split("train", (ids(training),)), bytes_per_token=1)
    assert not found.is_whole
    assert found.found == 0
