"""`pellucid evaluate`: the numbers of the log again, other data, JSON."""

import json
import math

import pytest


def test_it_gives_the_last_logged_validation_loss(cli, run_directory):
    logged = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    last = [fact for fact in logged if fact["event"] == "evaluation"][-1]
    assert last["is_best"]
    result = cli("evaluate", run_directory, "--max-tokens", last["val_tokens"], "--json").json
    assert result["loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    assert result["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(last["val_loss"]), rel=1e-6)
    assert result["tokens"] == last["val_tokens"]


def test_it_says_what_was_measured_on_what(cli, run_directory):
    outcome = cli("evaluate", run_directory)
    assert outcome.status == 0
    (line,) = outcome.out.splitlines()
    assert line.startswith("val split of plays.txt: loss 5.")
    assert "bits/byte (1,999 tokens, 1,999 bytes, fp32)" in line
    assert f"{run_directory}/checkpoints/step-00000008 (the run's best by validation loss)" in outcome.err


def test_the_newest_run_is_the_default(cli, run_directory):
    assert f"{run_directory.name}/checkpoints" in cli("evaluate", "--json").json["checkpoint"]


def test_bf16_is_near_and_said(cli, run_directory):
    exact, rough = (
        cli("evaluate", run_directory, "--dtype", name, "--json").json for name in ("fp32", "bf16")
    )
    assert (exact["precision"], rough["precision"]) == ("fp32", "bf16")
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.01)
    assert rough["loss"] != exact["loss"]


def test_a_text_of_ones_own_can_be_scored(cli, run_directory, workdir):
    (workdir / "own.txt").write_text("To be, or not to be.\n")
    result = cli("evaluate", run_directory, "--data", workdir / "own.txt", "--json").json
    assert (result["data"], result["tokens"], result["bytes"]) == (str(workdir / "own.txt"), 20, 20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seq-len", 17], "--seq-len 17 is more than the model's context (16)"),
        (["--data", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--dtype", "fp16"], "fp16 needs a CUDA GPU"),
    ],
)
def test_what_cannot_be_scored(cli, run_directory, words, message):
    assert message in cli("evaluate", run_directory, *words).error


def test_a_text_of_one_token_cannot_be_scored(cli, run_directory, workdir):
    (workdir / "one.txt").write_text("x")
    assert "needs at least 2" in cli("evaluate", run_directory, "--data", "one.txt").error
