"""The command line as a user meets it: real processes, their output, their exit statuses."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ["train", "generate", "evaluate", "prepare", "plan", "config", "verify-resume"]


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)], ids=" ".join)
def test_help(pellucid, words):
    result = pellucid(*words, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: pellucid")


def test_the_console_script_is_the_same_command(pellucid):
    script = shutil.which("pellucid", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the console script is not installed beside this Python")
    done = subprocess.run([script, "--help"], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, pellucid("--help").stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "error: name a preset, for example: pellucid train quick"),
        (["train", "debog"], "error: there is no run preset 'debog'; did you mean 'debug'?"),
        (["prepare", "missing.txt", "--out", "x"], "error: missing.txt: no such file"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_the_users_mistakes_end_with_2_and_one_line(pellucid, workdir, words, message):
    result = pellucid(*words)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(message)
    assert list(workdir.iterdir()) == []


def test_debug_shows_the_traceback_and_ends_with_the_same_status(pellucid):
    result = pellucid("prepare", "missing.txt", "--out", "x", "--debug")
    assert result.returncode == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1].startswith("error: missing.txt: no such file")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_leaves_early_is_no_error(corpus, workdir):
    """As in `pellucid prepare … --json | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pellucid", "prepare", str(corpus), "--out", "shards", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    os.close(writer)
    assert done.returncode == 128 + 13
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_from_raw_text_to_a_measured_model(pellucid, tiny, corpus):
    """The whole way by commands, each told only what the one before has printed."""
    prepared = pellucid("prepare", corpus, "--out", "data/plays", "--tokenizer", "char")
    assert (prepared.returncode, prepared.stdout) == (0, "")
    (words,) = (line.split()[4:] for line in prepared.stderr.splitlines() if line.startswith("next: "))
    assert words == ["data.path=data/plays", "data.tokenizer.kind=char"]

    trained = pellucid("train", *tiny, *words, "train.precision=auto", "train.sample_tokens=10", "--json")
    assert trained.returncode == 0, trained.stderr
    facts = [json.loads(line) for line in trained.stdout.splitlines()]
    assert facts[0]["run"] == str(Path("runs/debug-001"))
    assert facts[-1]["event"] == "end"
    (last,) = (fact for fact in facts if fact["event"] == "evaluation" and fact["step"] == 8)
    assert last["is_best"]

    measured = pellucid("evaluate", "--max-tokens", last["val_tokens"], "--json")
    assert measured.returncode == 0, measured.stderr
    score = json.loads(measured.stdout)
    assert score["loss"] == pytest.approx(last["val_loss"], rel=0.01)  # bf16, where the hardware has it
    assert score["perplexity"] == pytest.approx(math.exp(score["loss"]))
