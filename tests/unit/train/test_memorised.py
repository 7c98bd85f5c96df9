"""Whether a scored text was trained on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pellucid import checkpoint
from pellucid.data.shards import Split
from pellucid.train.memorised import seen_in_training
from pellucid.train.opening import open_data


@pytest.fixture
def loaded(train_tiny) -> checkpoint.Loaded:
    return checkpoint.load(checkpoint.find_checkpoint(train_tiny().directory)[0])


def test_the_training_text_was_seen_and_scrambled_words_of_it_were_not(loaded, corpus: Path):
    text = corpus.read_text(encoding="utf-8")
    assert seen_in_training(loaded, iter([text[:4000]])) == 1.0
    words = text.split()
    random.Random(0).shuffle(words)
    assert seen_in_training(loaded, iter([" ".join(words)])) == 0.0


def test_splits_are_looked_up_by_their_ids(loaded, tiny_config):
    shards = open_data(tiny_config()).shards
    assert seen_in_training(loaded, shards.train) == 1.0
    assert seen_in_training(loaded, shards.val) < 0.05
    both = Split("both", (shards.train.read(0, 2000), shards.val.read(0, 2000)))
    assert 0.3 < seen_in_training(loaded, both) < 0.7


def test_where_nobody_can_look_nothing_is_claimed(loaded, corpus: Path):
    text = corpus.read_text(encoding="utf-8")
    no_run = {key: value for key, value in loaded.config.items() if key == "model"}
    moved = {**loaded.config, "data": {**loaded.config["data"], "path": "moved/away.txt"}}
    hub = {**loaded.config, "data": {**loaded.config["data"], "path": "hub:somebody/something"}}
    for config in (no_run, moved, hub):
        alone = checkpoint.Loaded(loaded.model, loaded.tokenizer, config, loaded.path)
        assert seen_in_training(alone, iter([text])) is None
    assert seen_in_training(loaded, iter([])) is None
