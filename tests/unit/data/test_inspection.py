import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pellucid.data.inspection import report, sample_documents, statistics
from pellucid.data.prepare import prepare
from pellucid.data.shards import ShardSet, Split, open_shards
from pellucid.data.sources import open_source
from pellucid.tokenizers import ByteTokenizer


@pytest.fixture
def shards(tmp_path: Path, jsonl: Callable[..., Path], stories: list[str]) -> ShardSet:
    texts = [*stories, *stories[:5], "long " * 300, ""]
    source = open_source(jsonl(texts))
    prepare(source, ByteTokenizer(), tmp_path / "out", shard_tokens=700, deduplicate=True)
    return open_shards(tmp_path / "out")


def test_the_numbers_are_those_of_the_files(shards: ShardSet, stories: list[str]) -> None:
    numbers = statistics(shards.train, shards.manifest.train)
    lengths = sorted(np.diff(shards.train.bounds).tolist())
    assert numbers.documents == len(lengths) == shards.manifest.train.documents
    assert numbers.tokens == sum(lengths) == shards.train.tokens
    assert numbers.bytes == numbers.tokens - numbers.documents  # but for the ends of text
    assert numbers.bytes_per_token == numbers.bytes / numbers.tokens
    assert numbers.median_tokens == int(np.median(lengths))
    assert numbers.longest_tokens == lengths[-1] == shards.manifest.train.longest
    assert numbers.shards == len(list(shards.directory.glob("train-*.bin"))) > 1
    val = statistics(shards.val, shards.manifest.val)
    assert numbers.duplicates + val.duplicates == 5
    assert numbers.documents + val.documents == len(stories) + 1
    # Windows do not cross shards; the token after a window's last is its last target.
    assert numbers.windows[256] == sum(n // 256 for n in shards.train.shard_tokens if n > 256) > 3
    assert numbers.windows[4096] == 0


def test_the_report_is_json_and_has_what_was_left_out(shards: ShardSet) -> None:
    found = json.loads(json.dumps(report(shards)))
    assert found["left_out"]["empty"]["documents"] == 1
    assert "stories.jsonl, byte " in found["left_out"]["empty"]["first"]
    assert found["train"]["windows"]["256"] > 3
    assert found["val"]["documents"] == shards.manifest.val.documents


def test_documents_are_drawn_with_a_seed_and_decoded(shards: ShardSet) -> None:
    def drawn(count: int, **options: int) -> list[tuple[int, str]]:
        samples = sample_documents(shards.train, ByteTokenizer(), count, **options)
        return [(sample.number, sample.text) for sample in samples]

    everything = drawn(10**6, max_tokens=10**6)
    available = shards.manifest.train.documents
    assert [number for number, _ in everything] == list(range(available))
    assert "".join(text for _, text in everything) == ByteTokenizer().decode(
        shards.train.read(0, shards.train.tokens)
    )
    three = drawn(3, seed=1, max_tokens=10**6)
    assert three == sorted(three) == drawn(3, seed=1, max_tokens=10**6)
    assert set(three) < set(everything)
    assert len({tuple(drawn(3, seed=seed)) for seed in range(5)}) > 1
    assert drawn(0) == []


def test_a_long_document_is_cut_and_says_so(shards: ShardSet) -> None:
    samples = list(sample_documents(shards.train, ByteTokenizer(), 100, max_tokens=20))
    assert all(len(sample.text) <= 20 for sample in samples)
    assert all(sample.is_cut == (sample.tokens > 20) for sample in samples)
    assert any(sample.is_cut for sample in samples)
    whole = list(sample_documents(shards.train, ByteTokenizer(), 100, max_tokens=5000))
    assert not any(sample.is_cut for sample in whole)


def test_a_split_without_documents_has_no_samples_and_no_median(shards: ShardSet) -> None:
    empty = Split("val", ())
    record = shards.manifest.val.model_copy(
        update={"documents": 0, "tokens": 0, "bytes": 0, "shards": (), "duplicates": 0}
    )
    numbers = statistics(empty, record)
    assert (numbers.median_tokens, numbers.longest_tokens, numbers.bytes_per_token) == (0, 0, 0.0)
    assert list(sample_documents(empty, ByteTokenizer(), 3)) == []
