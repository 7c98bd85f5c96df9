"""The user's words or files are at fault: one clear message, exit status 2, no traceback, nothing lost."""

import os
import shutil
from pathlib import Path

import pytest

BINARY = b"\x7fELF\x02\x01\x01\x00\x00\x00\xff\xfe" * 20


@pytest.fixture
def files(workdir: Path) -> Path:
    """Files of every unfitting kind, in the current directory."""
    (workdir / "empty.txt").touch()
    (workdir / "binary.txt").write_bytes(BINARY)
    (workdir / "latin1.txt").write_bytes("café".encode("latin-1") * 100)
    (workdir / "short.txt").write_text("To be, or")
    (workdir / "picture.png").write_bytes(BINARY)
    (workdir / "empty folder").mkdir()
    (workdir / "pictures").mkdir()
    (workdir / "pictures/a.png").touch()
    (workdir / "broken.jsonl").write_text('{"text": "one"}\n{"text": \n')
    (workdir / "fieldless.jsonl").write_text('{"story": "one"}\n')
    (workdir / "plain").write_text("a file")
    return workdir


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Text ------------------------------------------------------------------------------------------------

TEXTS = [
    ("missing.txt", ["missing.txt", "no such file"]),
    ("emty.txt", ["emty.txt", "no such file", "did you mean 'empty.txt'"]),
    ("empty.txt", ["empty.txt", "empty"]),
    ("binary.txt", ["binary.txt", "not a text file", "UTF-8"]),
    ("latin1.txt", ["latin1.txt", "not a text file", "byte 3 is 0xe9"]),
    ("picture.png", ["picture.png", ".png", ".txt", ".jsonl"]),
    ("empty folder", ["empty folder", "no .txt or .jsonl file", "nothing"]),
    ("pictures", ["pictures", "found: 1 .png"]),
    ("broken.jsonl", ["broken.jsonl, line 2", "not JSON"]),
    ("fieldless.jsonl", ["fieldless.jsonl, line 1", "no field 'text'", "story", "text_field"]),
    ("builtin:shakespear", ["builtin:shakespear", "did you mean 'shakespeare'"]),
]


@pytest.mark.parametrize(("name", "words"), TEXTS, ids=[name for name, _ in TEXTS])
def test_text_that_cannot_be_trained_on(cli, tiny, files, name, words):
    before = tree(files)
    message = cli("train", *tiny, f"data.path={name}").error
    assert all(word in message for word in words), message
    assert tree(files) == before
    assert not (files / "runs").exists()


@pytest.mark.parametrize(("name", "words"), TEXTS, ids=[name for name, _ in TEXTS])
def test_text_that_cannot_be_prepared(cli, files, name, words):
    message = cli("prepare", name, "--out", "shards").error
    assert all(word in message for word in words), message
    assert not (files / "shards").exists()


def test_one_bad_file_among_several_is_named(cli, files, corpus):
    message = cli("prepare", corpus, "binary.txt", "--out", "shards").error
    assert "binary.txt" in message
    assert not (files / "shards").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["data.path=short.txt"], ["shorter than one window", "16", "17", "train.seq_len"]),
        (["data.path=short.txt", "train.seq_len=4", "train.batch_tokens=8"], ["val", "needs two"]),
        (["data.path=short.txt", "data.val_fraction=0.999"], ["cannot be split", "data.val_fraction"]),
        (["data.tokens_per_epoch=3"], ["data.tokens_per_epoch", "less than a window"]),
    ],
)  # fmt: skip
def test_too_little_text(cli, tiny, files, more, words):
    message = cli("train", *tiny, *more).error
    assert all(word in message for word in words), message
    assert not (files / "runs").exists()


# Words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["debog"], ["no run preset 'debog'", "did you mean 'debug'", "quick"]),
        (["debug", "train.stpes=5"], ["train.stpes", "did you mean 'steps'"]),
        (["debug", "modle.d_model=5"], ["modle", "did you mean 'model'"]),
        (["debug", "d_model=32"], ["d_model", "model.d_model"]),
        (["debug", "train.steps=many"], ["train.steps", "'many'"]),
        (["debug", "train.steps=-5"], ["train.steps", "-5"]),
        (["debug", "train.lr=fast"], ["train.lr", "'fast'"]),
        (["debug", "model.dropout=1.5"], ["model.dropout", "1.5"]),
        (["debug", "train.compile=perhaps"], ["train.compile", "'perhaps'"]),
        (["debug", "train.lr.peak=1"], ["train.lr.peak=1", "single value"]),
        (["debug", "model.norm.kind=layernrom"], ["model.norm.kind", "did you mean 'layernorm'", "rmsnorm"]),
        (["debug", "model.position.kind=alibo"], ["model.position.kind", "'alibo'", "rope", "learned"]),
        (["debug", "data.tokenizer=gtp2"], ["data.tokenizer", "'gtp2'", "did you mean 'gpt2'", "byte"]),
        (["debug", "train.optimizer.kind=lion"], ["train.optimizer.kind", "'lion'", "adamw"]),
        (["debug", "model.position.theta=500", "model.position.kind=learned"],
         ["model.position.kind=learned", "would drop model.position.theta", "first"]),
        (["debug", "model.position.kind=learned", "model.position.theta=500"],
         ["model.position.theta", "no such key", "learned"]),
        (["debug", "model.num_heads=5"], ["d_model (64)", "num_heads (5)"]),
        (["debug", "model.num_kv_heads=3"], ["num_heads (2)", "num_kv_heads (3)"]),
        (["debug", "train.batch_tokens=1000"], ["train.batch_tokens (1000)", "960 or 1024"]),
        (["debug", "model.vocab_size=100"], ["model.vocab_size (100)", "257"]),
        (["debug", "--device", "cuda"], ["--device cuda", "found: cpu"]),
        (["debug", "--device", "gpu"], ["--device gpu", "cuda, mps or cpu"]),
        (["debug", "train.precision=fp16"], ["train.precision", "fp16", "CUDA"]),
        (["debug", "--quick"], ["--quick", "'debug'"]),
        (["debug", "--config", "missing.toml"], ["missing.toml", "no such config file"]),
        (["debug", "--config", "binary.txt"], ["binary.txt"]),
        (["debug", "--config", "plain"], ["plain", "TOML"]),
        (["debug", "--init", "nowhere"], ["nowhere", "no such run or checkpoint"]),
        (["--resume", "nowhere"], ["nowhere", "no run to resume"]),
        (["--resume", "plain"], ["plain", "no run to resume"]),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)  # fmt: skip
def test_words_that_make_no_run(cli, files, words, expected):
    before = tree(files)
    message = cli("train", *words).error
    assert all(word in message for word in expected), message
    assert tree(files) == before
    assert not (files / "runs").exists()


@pytest.mark.parametrize("command", ["plan", "verify-resume"])
def test_other_commands_read_a_preset_in_the_same_way(cli, files, command):
    assert "did you mean 'steps'" in cli(command, "debug", "train.stpes=5").error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tokenizer", "gtp2"], ["tokenizer.kind", "'gtp2'", "did you mean 'gpt2'"]),
        (["--val-fraction", "2"], ["data.val_fraction", "between 0 and 1"]),
        (["--out", "plain"], ["plain", "in the way"]),
        (["--out", "plain/below"], ["plain", "in the way"]),
        (["--out", "pictures"], ["pictures", "holds other files"]),
    ],
)
def test_prepare_with_words_that_cannot_be(cli, files, corpus, words, expected):
    before = tree(files)
    message = cli("prepare", corpus, "--out", "shards", *words).error
    assert all(word in message for word in expected), message
    assert tree(files) == before


def test_ranks_that_are_not_on_this_machine_are_explained(cli, files, corpus, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(files / "empty folder"))
    message = cli("prepare", corpus, "--out", "shards", "--tokenizer", "o200k_base").error
    assert "o200k_base" in message
    assert "TIKTOKEN_CACHE_DIR" in message


@pytest.mark.parametrize("command", ["generate", "evaluate"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere", ["nowhere", "no such run or checkpoint"]),
        ("plain", ["plain", "neither a run", "nor a checkpoint"]),
        ("pictures", ["pictures", "neither a run", "nor a checkpoint"]),
        (None, ["runs", "no trained run is there yet", "pellucid train quick"]),
    ],
)
def test_there_is_nothing_to_read_a_model_from(cli, files, command, target, expected):
    message = cli(
        command, *([target] if target else []), *(["--prompt", "x"] if command == "generate" else [])
    ).error
    assert all(word in message for word in expected), message


# Disks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["plain", "plain/below", "plain/below/that"])
def test_a_directory_that_cannot_be_written(cli, tiny, files, where):
    message = cli("train", *tiny, f"run.dir={where}").error
    assert "plain" in message
    assert "in the way" in message
    assert (files / "plain").read_text() == "a file"


@pytest.mark.skipif(
    os.name == "nt" or getattr(os, "geteuid", lambda: 1)() == 0, reason="needs a user who is not root"
)
def test_a_read_only_directory(cli, tiny, workdir):
    (workdir / "locked").mkdir(mode=0o500)
    assert "permission denied" in cli("train", *tiny, "run.dir=locked/run").error


def test_a_named_directory_with_a_run_in_it_is_not_overwritten(cli, tiny, run_directory):
    before = tree(run_directory)
    assert (
        f"already holds a run; continue it with pellucid train --resume {run_directory}"
        in cli("train", *tiny, f"run.dir={run_directory}").error
    )
    assert tree(run_directory) == before


def test_a_full_disk_is_noticed_before_preparing(cli, files, corpus, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    message = cli("prepare", corpus, "--out", "shards").error
    assert "needs" in message
    assert "free" in message
    assert not (files / "shards").exists()


def test_a_full_disk_is_noticed_before_training(cli, tiny, run_directory, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert "the first checkpoint needs 8.5 MB" in cli("train", *tiny, "run.dir=full").error


def test_a_disk_that_fills_up_while_training_loses_nothing(cli, tiny, run_directory, workdir, monkeypatch):
    """It has room for the start; then another process takes it."""
    rooms = iter([10**12] * 3)  # before the start; before the first save, and in it
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": next(rooms, 1000)})())
    message = cli("train", *tiny, "run.dir=filling").error
    assert "a checkpoint needs" in message
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    saved = sorted(path.name for path in (workdir / "filling/checkpoints").iterdir())
    assert saved == ["step-00000004"]
    resumed = cli("train", "--resume", "filling")
    assert resumed.status == 0
    assert "from step 4" in resumed.err


# Damage ----------------------------------------------------------------------------------------------


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.fixture
def shards(cli, corpus, workdir) -> Path:
    assert cli("prepare", corpus, "--out", "shards").status == 0
    return workdir / "shards"


@pytest.mark.parametrize("words", [[], ["--check"]], ids=["train", "check"])
@pytest.mark.parametrize("name", ["train-00000.bin", "val-00000.bin", "train-00000.starts"])
@pytest.mark.parametrize(
    ("harm", "word"), [(flip, "altered"), (truncate, "truncated"), (Path.unlink, "missing")]
)
def test_a_damaged_shard_is_noticed_before_training(cli, tiny, shards, words, name, harm, word):
    harm(shards / name)
    message = cli("train", *tiny, f"data.path={shards}", *words).error
    assert str(shards / name) in message
    assert word in message
    assert "prepare the data again" in message
    assert not (shards.parent / "runs").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_a_damaged_manifest_is_named(cli, tiny, shards, content):
    (shards / "manifest.json").write_text(content)
    assert "manifest.json" in cli("train", *tiny, f"data.path={shards}").error


def test_data_prepared_with_another_tokenizer(cli, tiny, shards):
    message = cli("train", *tiny, f"data.path={shards}", "data.tokenizer=gpt2").error
    assert "was prepared with tokenizer byte" in message
    assert "names gpt2" in message


@pytest.mark.parametrize(
    "command", [["generate", "--prompt", "x"], ["evaluate"]], ids=["generate", "evaluate"]
)
@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.toml", "tokenizer/pellucid.json", "train_state/values.json"]
)
def test_a_damaged_checkpoint_is_named(cli, run_directory, command, harm, name):
    checkpoint = run_directory / "checkpoints/step-00000008"
    harm(checkpoint / name)
    assert str(checkpoint / name) in cli(command[0], checkpoint, *command[1:]).error


def test_of_a_run_with_a_damaged_best_the_newest_whole_checkpoint_is_used_and_that_is_said(
    cli, run_directory
):
    flip(run_directory / "checkpoints/step-00000008/model.safetensors")
    outcome = cli("generate", run_directory, "--prompt", "x", "--max-new-tokens", 2)
    assert outcome.status == 0
    assert "step-00000004 (the run's newest whole checkpoint" in outcome.err
    assert "step-00000008/model.safetensors: truncated or altered" in outcome.err


def test_when_every_checkpoint_is_damaged_each_is_named(cli, run_directory):
    for path in run_directory.glob("checkpoints/*/model.safetensors"):
        flip(path)
    outcome = cli("train", "--resume", run_directory, "train.steps=12")
    assert outcome.status == 2
    assert "no whole checkpoint" in outcome.err
    assert outcome.err.count("truncated or altered") == 2
    assert "Traceback" not in outcome.err


def test_a_damaged_config_of_a_run_is_named(cli, run_directory):
    (run_directory / "config.toml").write_text("[train\nsteps=")
    assert "config.toml" in cli("train", "--resume", run_directory).error


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("model.d_model=32", "model.d_model: 16 → 32"),
        ("data.tokenizer=gpt2", "data.tokenizer.kind: byte → gpt2"),
        ("train.seed=3", "train.seed: 0 → 3"),
    ],
)
def test_resume_as_another_run_shows_the_difference(cli, run_directory, word, difference):
    assert difference in cli("train", "--resume", run_directory, word).error


def test_evaluate_on_data_of_another_tokenizer(cli, run_directory, corpus):
    cli("prepare", corpus, "--out", "gpt2", "--tokenizer", "gpt2")
    message = cli("evaluate", run_directory, "--data", "gpt2").error
    assert "prepared with tokenizer gpt2" in message
    assert "reads byte" in message


# Debugging -------------------------------------------------------------------------------------------


def test_debug_shows_where_the_error_came_from(cli, files):
    outcome = cli("train", "debug", "data.path=missing.txt", "--debug")
    assert outcome.status == 2
    assert "Traceback (most recent call last)" in outcome.err
    assert "error: missing.txt: no such file" in outcome.err


def test_json_does_not_change_what_is_said_of_an_error(cli, files):
    assert "missing.txt: no such file" in cli("train", "debug", "data.path=missing.txt", "--json").error


def test_brackets_in_a_path_are_shown_as_they_are(cli, tiny, corpus, workdir):
    shutil.copy(corpus, workdir / "[red]x.txt")
    outcome = cli("train", *tiny, "data.path=[red]x.txt", "run.dir=[bold]y")
    assert outcome.status == 0
    assert "next: pellucid generate [bold]y " in outcome.err
