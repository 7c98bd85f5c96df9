"""Scoring a checkpoint on its own data, on prepared data and on texts of all kinds."""

import json
import math

import numpy as np
import pytest

from pellucid import checkpoint, tokenizers
from pellucid.data.prepare import prepare
from pellucid.data.sources import open_source
from pellucid.errors import CheckpointError, ConfigError, DataError
from pellucid.evaluate.compare import compare
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.train.evaluation import evaluate_checkpoint
from pellucid.train.score import TextRequest, score_checkpoint, score_loaded
from pellucid.train.scored_text import TextFormat


@pytest.fixture
def saved(train_tiny):
    """The last checkpoint of the tiny run."""
    return checkpoint.find_checkpoint(train_tiny().directory)[0]


@pytest.fixture
def fp32():
    return choose_precision("fp32", choose_device("cpu"))


@pytest.fixture
def score(saved, fp32):
    def run(*data, **settings):
        return score_checkpoint(saved, precision=fp32, request=TextRequest(tuple(map(str, data)), **settings))

    return run


def test_the_default_is_the_validation_split_of_its_own_data(score, saved, fp32):
    numbers = score()
    assert numbers.data == "val split of plays.txt"
    assert numbers.tokens == numbers.bytes == 2000  # the last tenth of 20,000 characters
    assert numbers.bits_per_byte == pytest.approx(numbers.loss / math.log(2))
    name, plain = score_loaded(checkpoint.load(saved), precision=fp32)
    assert name == numbers.data
    assert plain.tokens == 2000 - 1  # the first has nothing before it there
    assert plain.loss == pytest.approx(numbers.loss, rel=1e-3)


def test_the_training_split_and_a_part_can_be_asked_for(score):
    numbers = score(split="train", max_tokens=100)
    assert (numbers.data, numbers.tokens) == ("train split of plays.txt", 100)


def test_one_text_is_scored_to_its_last_byte_and_first(score, corpus, workdir):
    tail = workdir / "tail.txt"
    tail.write_text(corpus.read_text(encoding="utf-8")[-2000:], encoding="utf-8", newline="")
    found = score(tail)
    assert (found.tokens, found.bytes) == (2000, 2000)
    assert found.loss == pytest.approx(score().loss, rel=0.01)
    assert score(tail, max_tokens=50).bytes == 50


def test_text_that_has_changed_since_is_not_taken_for_its_own(train_tiny, corpus, workdir, fp32):
    own = workdir / "own.txt"
    own.write_text(corpus.read_text())
    path = checkpoint.find_checkpoint(train_tiny(f"data.path={own}").directory)[0]
    own.write_text(corpus.read_text().upper())
    with pytest.raises(
        DataError, match=r"(?s)is not what this model was trained on.*\n  source\.files\.own\.txt: "
    ):
        score_checkpoint(path, precision=fp32)


def test_prepared_data_is_scored(score, corpus, workdir):
    prepare(open_source(corpus), tokenizers.build("byte"), workdir / "shards")
    found = score(workdir / "shards")
    assert found.data == f"val split of {workdir / 'shards'}"
    assert found.loss == score().loss
    assert found.text_sha256 == score().text_sha256


def test_a_shorter_context_is_another_one_and_a_longer_one_is_refused(score):
    assert score(seq_len=1).loss != score().loss
    with pytest.raises(CheckpointError, match=r"--seq-len 17 is more than the model's context \(16\)"):
        score(seq_len=17)


def test_a_stride_must_fit_the_window(score, corpus):
    assert score(corpus, stride=4, max_tokens=200).stride == 4
    for stride in (0, 17):
        with pytest.raises(ConfigError, match=rf"--stride {stride}: wanted 1 to 16"):
            score(corpus, stride=stride)


def test_prepared_data_of_another_tokenizer_is_refused(score, corpus, workdir):
    prepare(open_source(corpus), tokenizers.build("gpt2"), workdir / "shards")
    with pytest.raises(DataError, match=r"prepared with tokenizer gpt2 \(\w+\), and the model reads byte"):
        score(workdir / "shards")


@pytest.fixture
def library(workdir):
    """A folder with two sub-folders and a file: 31 documents of three parts."""
    for name in ("prose", "verse"):
        (workdir / "library" / name).mkdir(parents=True)
        lines = [json.dumps({"text": f"{name} number {i}, a text", "body": "x" * 9}) for i in range(15)]
        (workdir / "library" / name / "all.jsonl").write_text("\n".join(lines))
    (workdir / "library" / "preface.md").write_text("Dear reader")
    return workdir / "library"


def test_sub_folders_and_files_of_a_folder_are_its_parts(score, library):
    found = score(library)
    assert found.unit == "document"
    assert found.domains == ("preface.md", "prose", "verse")
    assert [len(found.of_domain(name).units) for name in found.domains] == [1, 15, 15]
    assert found.of_domain("preface.md").bytes == len("Dear reader")
    alone = score(library / "prose" / "all.jsonl")
    assert alone.domains == ()
    assert alone.loss * alone.tokens == pytest.approx(found.of_domain("prose").units.losses.sum(), rel=1e-6)


def test_several_paths_are_parts_with_names(score, library):
    found = score(f"p={library / 'prose'}", library / "verse")
    assert found.domains == ("p", str(library / "verse"))
    assert found.data == f"p + {library / 'verse'}"
    assert len(found.units) == 30


def test_records_may_have_their_text_in_another_field(score, library):
    found = score(library / "prose", form=TextFormat(text_field="body"))
    assert found.bytes == 15 * 9


def test_a_path_with_an_equals_sign_that_exists_is_a_path(score, workdir):
    (workdir / "a=b.txt").write_text("some words")
    assert score("a=b.txt").data == "a=b.txt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["=x.txt"], "--data =x.txt: wanted PATH, or NAME=PATH"),
        (["prose="], "--data prose=: wanted PATH, or NAME=PATH"),
        (["a=library", "a=library/prose"], "--data: 'a' is named twice"),
        (["a=nowhere.txt"], "nowhere.txt: no such file or folder"),
        (["empty"], "empty: no .txt or .jsonl file in this folder"),
        (["empty.txt"], "empty.txt: .*empty"),
        (["one.txt"], r"the text has 1 token\(s\) to score; scoring needs at least 2"),
        (["broken.txt"], "broken.txt"),
        (["model.bin"], "model.bin: a .bin file cannot be read"),
        (["library", "shards"], "shards: was prepared, and is scored alone"),
    ],
)
def test_what_cannot_be_scored(score, library, corpus, workdir, words, message):
    (workdir / "empty").mkdir()
    (workdir / "empty.txt").write_text("")
    (workdir / "one.txt").write_text("x")
    (workdir / "broken.txt").write_bytes(b"caf\xe9 au lait")
    (workdir / "model.bin").write_bytes(b"\x00\x01")
    prepare(open_source(corpus), tokenizers.build("byte"), workdir / "shards")
    with pytest.raises(DataError, match=message):
        score(*words)


def test_weights_without_a_training_config_need_a_text(saved, workdir, fp32):
    loaded = checkpoint.load(saved)
    alone = {"model": loaded.config["model"]}
    contents = checkpoint.Contents(alone, dict(loaded.model.named_parameters()), loaded.tokenizer)
    checkpoint.save(workdir / "weights", contents)
    with pytest.raises(CheckpointError, match="name a text with --data"):
        score_checkpoint(workdir / "weights", precision=fp32)


def test_packed_rows_are_units_that_add_up_to_the_log(train_tiny, library, fp32):
    run = train_tiny(
        "data.objective.packing=best_fit", f"data.path={library}", "train.eval_tokens=100000"
    ).directory
    facts = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [fact for fact in facts if fact["event"] == "evaluation"][-1]
    found = score_checkpoint(checkpoint.find_checkpoint(run)[0], precision=fp32)
    assert found.unit == "window of 16 tokens"
    assert found.tokens == last["val_tokens"]
    assert found.loss == pytest.approx(last["val_loss"], rel=1e-6)
    assert found.bits_per_byte == pytest.approx(last["bits_per_byte"], rel=1e-6)
    assert np.all(found.units.tokens <= 16)


def test_the_first_of_the_text_alone_is_looked_for_in_the_training_text(score, corpus, workdir, fp32):
    """The first half was trained on; the other is scrambled."""
    text = corpus.read_text(encoding="utf-8")[:4000]
    (workdir / "half.txt").write_text(text + text[::-1], encoding="utf-8", newline="")
    assert 0.3 < score(workdir / "half.txt").seen_in_training < 0.7
    assert score(workdir / "half.txt", max_tokens=3000).seen_in_training == 1.0
    prepare(open_source(workdir / "half.txt"), tokenizers.build("byte"), workdir / "half", val_fraction=0.1)
    assert 0.3 < score(workdir / "half", split="train").seen_in_training < 0.7
    assert score(workdir / "half", split="train", max_tokens=3000).seen_in_training == 1.0


def test_models_of_two_tokenizers_are_paired_on_their_own_data(train_tiny, workdir, fp32):
    lines = [json.dumps({"text": f"“{i}” begins each of them, and then more words"}) for i in range(400)]
    (workdir / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = [
        evaluate_checkpoint(
            checkpoint.find_checkpoint(
                train_tiny(
                    f"data.path={workdir / 'lines.jsonl'}", f"data.tokenizer.kind={kind}", f"run.dir={kind}"
                ).directory
            )[0],
            fp32,
        )
        for kind in ("byte", "char")
    ]
    assert found[0].texts[0].tokens > found[1].texts[0].tokens
    assert compare(found).differences[0].is_paired


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reads": "stream"}, "--reads stream: is for raw text, and the data was prepared"),
        ({"form": TextFormat(text_field="body")}, "--text-field: is for raw text"),
        ({"form": TextFormat(document_marker="#")}, "--document-marker: is for raw text"),
    ],
)
def test_settings_of_raw_text_are_refused_for_prepared_data(score, corpus, workdir, settings, message):
    prepare(open_source(corpus), tokenizers.build("byte"), workdir / "shards")
    for data in ((), (workdir / "shards",)):
        with pytest.raises(ConfigError, match=message):
            score(*data, **settings)


def test_a_side_of_raw_text_is_refused(score, corpus):
    with pytest.raises(ConfigError, match="--split train: is for prepared data"):
        score(corpus, split="train")
