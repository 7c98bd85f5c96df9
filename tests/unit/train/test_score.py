"""Scoring a checkpoint on its own data, on prepared data and on a text."""

import pytest

from pellucid import checkpoint, tokenizers
from pellucid.data.prepare import prepare
from pellucid.data.sources import open_source
from pellucid.errors import CheckpointError, DataError
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.train.score import score_checkpoint


@pytest.fixture
def saved(train_tiny):
    """The last checkpoint of the tiny run."""
    return checkpoint.find_checkpoint(train_tiny().directory)[0]


@pytest.fixture
def score(saved):
    precision = choose_precision("fp32", choose_device("cpu"))
    return lambda **settings: score_checkpoint(saved, precision=precision, **settings)


def test_the_default_is_the_validation_split_of_its_own_data(score):
    what, numbers = score()
    assert what == "val split of plays.txt"
    assert numbers.tokens == 2000 - 1  # the last tenth of 20,000 characters
    assert numbers.bits_per_byte == pytest.approx(numbers.loss / 0.6931471805599453)


def test_the_training_split_and_a_part_can_be_asked_for(score):
    what, numbers = score(split="train", max_tokens=100)
    assert (what, numbers.tokens) == ("train split of plays.txt", 100)


def test_a_text_is_scored_as_its_split_would_be(score, corpus, workdir):
    tail = workdir / "tail.txt"
    tail.write_text(corpus.read_text(encoding="utf-8")[-2000:], encoding="utf-8", newline="")
    assert score(data=tail)[1] == score()[1]
    assert score(data=tail, max_tokens=50)[1].tokens == 50


def test_text_that_has_changed_since_is_not_taken_for_its_own(train_tiny, corpus, workdir):
    own = workdir / "own.txt"
    own.write_text(corpus.read_text())
    path = checkpoint.find_checkpoint(train_tiny(f"data.path={own}").directory)[0]
    own.write_text(corpus.read_text().upper())
    with pytest.raises(
        DataError, match=r"(?s)is not what this model was trained on.*\n  source\.files\.own\.txt: "
    ):
        score_checkpoint(path, precision=choose_precision("fp32", choose_device("cpu")))


def test_prepared_data_is_scored(score, corpus, workdir):
    prepare(open_source(corpus), tokenizers.build("byte"), workdir / "shards")
    what, numbers = score(data=workdir / "shards")
    assert what == f"val split of {workdir / 'shards'}"
    assert numbers == score()[1]


def test_a_shorter_context_is_a_worse_or_equal_one_and_a_longer_one_is_refused(score):
    assert score(seq_len=1)[1].loss != score()[1].loss
    with pytest.raises(CheckpointError, match=r"--seq-len 17 is more than the model's context \(16\)"):
        score(seq_len=17)


def test_prepared_data_of_another_tokenizer_is_refused(score, corpus, workdir):
    prepare(open_source(corpus), tokenizers.build("gpt2"), workdir / "shards")
    with pytest.raises(DataError, match=r"prepared with tokenizer gpt2 \(\w+\), and the model reads byte"):
        score(data=workdir / "shards")


def test_a_collection_of_texts_must_be_prepared_first(score, workdir):
    (workdir / "texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (workdir / "texts" / name).write_text("text")
    with pytest.raises(
        DataError, match=r"prepare it first with the model's tokenizer, byte: pellucid prepare"
    ):
        score(data=workdir / "texts")


def test_weights_without_a_training_config_need_a_text(saved, workdir):
    loaded = checkpoint.load(saved)
    alone = {"model": loaded.config["model"]}
    contents = checkpoint.Contents(alone, dict(loaded.model.named_parameters()), loaded.tokenizer)
    checkpoint.save(workdir / "weights", contents)
    precision = choose_precision("fp32", choose_device("cpu"))
    with pytest.raises(CheckpointError, match="name a text with --data"):
        score_checkpoint(workdir / "weights", precision=precision)
