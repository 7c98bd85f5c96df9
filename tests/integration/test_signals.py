"""Ctrl-C and SIGTERM while a run goes on: it is saved, says how to go on, and goes on as if nothing had been."""

import os
import signal
import time

import pytest

from pellucid import checkpoint
from pellucid.cli.main import main
from pellucid.experiments.verify_resume import compare_runs
from pellucid.train.run_files import read_facts

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process")

STEPS = 100
CONSTANT = ("train.schedule.final_fraction=1",)  # a rate that does not know how long the run is
WATCHED = ("train.eval_every=50", "train.checkpoint_every=1000000")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_is_saved_and_goes_on(
    train_tiny, tiny, start, wait_until, workdir, capsys, number
):
    words = (*CONSTANT, *WATCHED, "model.dropout=0.1")
    process = start("train", *tiny, *words, "train.steps=1000000")
    log = workdir / "runs/debug-001/metrics.jsonl"
    wait_until(lambda: (log.exists() and log.read_bytes().count(b"\n") > 20) or process.poll() is not None)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 128 + number
    assert out == ""
    assert err.splitlines()[-1] == "saved; go on with: pellucid train --resume runs/debug-001"
    (saved,) = (log.parent / "checkpoints").iterdir()
    checkpoint.verify(saved)
    *_, step, end = read_facts(log)
    assert (end["event"], end["reason"], end["step"]) == ("end", "interrupted", step["step"])
    assert saved.name == f"step-{step['step']:08}"
    assert step["step"] < STEPS, "the signal was heeded at once"

    assert main(["train", "--resume", "runs/debug-001", f"train.steps={STEPS}"]) == 0
    assert f"from step {step['step']}" in capsys.readouterr().err
    whole = train_tiny(*words, f"train.steps={STEPS}").directory
    assert compare_runs(whole, log.parent) == []


@pytest.mark.slow
def test_sigterm_in_a_long_evaluation_saves_at_once_and_leaves_the_evaluation_for_later(
    tiny, start, wait_until, workdir, corpus
):
    (workdir / "long.txt").write_text(corpus.read_text(encoding="utf-8") * 100, encoding="utf-8")
    words = ("data.path=long.txt", "data.val_fraction=0.9", "train.eval_tokens=", "train.weight_average=0.9")
    process = start("train", *tiny, *words, "model.d_model=64", "model.num_layers=4")
    log = workdir / "runs/debug-001/metrics.jsonl"
    wait_until(lambda: (log.exists() and b'"step": 4' in log.read_bytes()) or process.poll() is not None)
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    print(f"saved and gone {time.monotonic() - began:.2f} s after SIGTERM")

    assert process.returncode == 128 + signal.SIGTERM
    facts = list(read_facts(log))
    assert [fact["event"] for fact in facts] == ["start", *["step"] * 4, "end"]
    (saved,) = (log.parent / "checkpoints").iterdir()
    checkpoint.verify(saved)
    assert saved.name == "step-00000004"
    assert checkpoint.load_train_values(saved)["evaluation_due"] is True


@pytest.mark.slow
def test_sigterm_in_a_long_update_leaves_it_and_a_resumed_run_makes_it_again(
    train_tiny, tiny, start, wait_until, workdir
):
    words = ("train.batch_tokens=65536", "train.micro_batch=1", "train.steps=1", "model.dropout=0.1")
    process = start("train", *tiny, *words)
    log = workdir / "runs/debug-001/metrics.jsonl"
    wait_until(lambda: (log.exists() and b'"start"' in log.read_bytes()) or process.poll() is not None)
    # Of about ten seconds that the update takes; making its 4,096 batches takes a part of the first.
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM
    assert [(fact["event"], fact["step"]) for fact in read_facts(log)] == [("start", 0), ("end", 0)]
    checkpoint.verify(log.parent / "checkpoints/step-00000000")
    assert main(["train", "--resume", "runs/debug-001"]) == 0
    assert compare_runs(train_tiny(*words).directory, log.parent) == []
