"""Whether a scored text was trained on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.data.shards import Split
from pellucid.train.config import RunConfig
from pellucid.train.memorised import seen_in_training, split_documents
from pellucid.train.opening import open_data


@pytest.fixture
def loaded(train_tiny) -> checkpoint.Loaded:
    return checkpoint.load(checkpoint.find_checkpoint(train_tiny().directory)[0])


def seen(loaded: checkpoint.Loaded, *texts: str) -> float | None:
    return seen_in_training(loaded, map(loaded.tokenizer.encode, texts))


def seen_of(loaded: checkpoint.Loaded, split: Split) -> float | None:
    return seen_in_training(loaded, split_documents(loaded, split, split.tokens))


def test_the_training_text_was_seen_and_scrambled_words_of_it_were_not(loaded, corpus: Path):
    text = corpus.read_text(encoding="utf-8")
    assert seen(loaded, text[:4000]) == 1.0
    words = text.split()
    random.Random(0).shuffle(words)
    assert seen(loaded, " ".join(words)) == 0.0


def test_splits_are_looked_up_by_their_ids(loaded, tiny_config):
    shards = open_data(tiny_config()).shards
    assert seen_of(loaded, shards.train) == 1.0
    unseen = seen_of(loaded, shards.val)
    assert unseen is not None
    assert unseen < 0.05
    both = Split("both", (shards.train.read(0, 2000), shards.val.read(0, 2000)))
    half = seen_of(loaded, both)
    assert half is not None
    assert 0.3 < half < 0.7


def lines(first: int, count: int) -> list[str]:
    """Documents of about 40 bytes, none like another."""
    generator = random.Random(first)
    return ["".join(generator.choices("abcdefgh ", k=40)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["byte", "gpt2"])
def test_short_documents_of_the_training_text_are_found(train_tiny, workdir: Path, kind: str):
    """Whether they come as text or from shards, where a mark stands between two of them."""
    (workdir / "lines.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines(0, 3000)))
    words = [f"data.path={workdir / 'lines.jsonl'}", f"data.tokenizer.kind={kind}"]
    run = train_tiny(*words, "train.steps=1", "train.sample_tokens=0").directory
    loaded = checkpoint.load(checkpoint.find_checkpoint(run)[0])
    share = seen(loaded, *lines(0, 3000))
    assert share is not None
    assert 0.85 < share < 0.95  # a tenth was held out
    assert seen(loaded, *lines(1, 3000)) == 0.0
    shards = open_data(from_tree(RunConfig, loaded.config)).shards
    assert seen_of(loaded, shards.train) == 1.0
    assert seen_of(loaded, shards.val) == 0.0


def test_documents_of_a_split_go_over_shards_and_end_before_their_mark(loaded):
    end = loaded.tokenizer.end_of_text_id
    ids = np.array([1, 2, end, 3, 4, 5, end], dtype=np.uint16)
    starts = (np.array([0, 3], dtype=np.uint64), np.array([], dtype=np.uint64))
    split = Split("train", (ids[:5], ids[5:]), starts)
    assert [one.tolist() for one in split_documents(loaded, split, 7)] == [[1, 2], [3, 4, 5]]
    assert [one.tolist() for one in split_documents(loaded, split, 4)] == [[1, 2], [3]]
    unknown = Split("train", split.shards)
    assert [len(one) for one in split_documents(loaded, unknown, 7)] == [5, 1]


def test_where_nobody_can_look_nothing_is_claimed(loaded, corpus: Path):
    text = corpus.read_text(encoding="utf-8")
    no_run = {key: value for key, value in loaded.config.items() if key == "model"}
    moved = {**loaded.config, "data": {**loaded.config["data"], "path": "moved/away.txt"}}
    hub = {**loaded.config, "data": {**loaded.config["data"], "path": "hub:somebody/something"}}
    for config in (no_run, moved, hub):
        alone = checkpoint.Loaded(loaded.model, loaded.tokenizer, config, loaded.path)
        assert seen(alone, text) is None
    assert seen(loaded) is None


def test_nothing_is_prepared_for_it(loaded, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PELLUCID_CACHE_DIR", str(tmp_path / "empty"))
    config = {**loaded.config, "data": {**loaded.config["data"], "cache_dir": None}}
    alone = checkpoint.Loaded(loaded.model, loaded.tokenizer, config, loaded.path)
    assert seen(alone, corpus.read_text(encoding="utf-8")) is None
    assert not (tmp_path / "empty").exists()
