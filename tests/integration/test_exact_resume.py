"""A run that is killed and resumed equals the uninterrupted one to the bit: real processes, SIGKILL, files compared."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pellucid.cli.main import main
from pellucid.experiments.verify_resume import compare_runs, verify_resume
from pellucid.runtime.device import Machine
from pellucid.train import resume

LIMIT_S = 600

eager = (
    "train.optimizer.kind=sgd",
    "train.schedule.kind=linear",
    "data.objective.kind=prefix",
    "train.precision=fp32",
    "train.compile=false",
)
compiled = ("train.precision=bf16", "train.compile=true", "train.optimizer.kind=muon")
everything = (
    "model.feed_forward.kind=moe",
    "train.schedule.kind=constant",
    "train.precision=fp32",
    "model.dropout=0.1",
    "train.micro_batch=4",
    "train.activation_checkpointing=full",
    "train.weight_average=0.9",
    "train.keep_checkpoints=1",
)
spans = (
    "model.kind=encoder_decoder",
    "data.objective.kind=span_corruption",
    "train.optimizer.kind=muon",
    "train.schedule.kind=wsd",
    "data.tokenizer.special_tokens=[" + ", ".join(f"'<extra_id_{n}>'" for n in range(8)) + "]",
    "model.d_model=32",
    "model.num_heads=2",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
    "model.max_seq_len=64",
    "train.precision=bf16",
    "train.compile=false",
)
mixed = (
    "train.optimizer.kind=adafactor",
    "train.schedule.kind=inverse_sqrt",
    "data.mixture=[{path = 'plays.txt', weight = 2}, {path = 'loud.txt', weight = 1}]",
    "model.dropout=0.2",
    "train.final_dropout=0.0",
    "train.precision=fp32",
)


@pytest.fixture
def seed() -> int:
    """Decides the moments of the kills; printed, so that a failure can be looked at again."""
    number = random.SystemRandom().randrange(1_000_000)
    print("the moments of the kills come from seed", number)
    return number


def test_a_run_killed_at_a_random_moment_is_the_same_run(workdir, seed, capsys):
    assert main(["verify-resume", "debug", "--json", "--seed", str(seed)]) == 0
    out, err = capsys.readouterr()
    verdict = json.loads(out)
    print(err)
    assert verdict["is_exact"] is True
    assert verdict["steps"] == 40
    assert len(verdict["kills"]) == 1
    assert verdict["differences"] == []
    assert err.splitlines()[-1].startswith("exact: weights, optimizer state and every logged loss")
    assert not list(workdir.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(
    ("words", "steps", "kills"),
    [
        pytest.param(eager, 80, 6, id="prefix, SGD, linear"),
        pytest.param(everything, 60, 4, id="experts, dropout, accumulation, recomputed, averaged, constant"),
        pytest.param(compiled, 60, 4, id="compiled bf16, Muon"),
        pytest.param(spans, 40, 3, id="encoder-decoder: spans, Muon, WSD, bf16"),
        pytest.param(mixed, 40, 3, id="mixture, Adafactor, inverse square root, moving dropout"),
    ],
)
def test_kills_over_the_whole_run(workdir, monkeypatch, corpus, seed, words, steps, kills):
    if "train.compile=true" in words and Machine.probe().compiler is None:
        pytest.skip("torch.compile needs a C++ compiler here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(workdir / "inductor"))
    text = corpus.read_text(encoding="utf-8")
    (workdir / "plays.txt").write_text(text, encoding="utf-8")
    (workdir / "loud.txt").write_text(text.upper(), encoding="utf-8")
    verdict = verify_resume(["debug", *words], work=workdir, steps=steps, kills=kills, seed=seed)
    print(*verdict.kills, sep="\n")
    assert verdict.differences == ()
    assert len(verdict.kills) == kills
    assert any(kill.saved_step for kill in verdict.kills), "no kill came after a checkpoint"


@pytest.mark.slow
def test_a_run_killed_while_it_starts_is_the_same_run(tiny, start, train_tiny, workdir, seed):
    """Killed at moments from the first instant on, most of them before the first update."""
    whole = train_tiny("train.steps=12").directory
    draw = random.Random(seed)
    killed = workdir / "killed"
    words = [*tiny, "train.steps=12", f"run.dir={killed}"]
    for _ in range(4):
        command = ["--resume", str(killed)] if (killed / "config.toml").is_file() else words
        process = start("train", *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, 3))
        process.kill()
        process.wait()
    command = ["--resume", str(killed)] if (killed / "config.toml").is_file() else words
    assert main(["train", *command]) == 0
    assert compare_runs(whole, killed) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process and look")
def test_a_kill_in_the_middle_of_a_save_leaves_nothing_half_done(
    train_tiny, tiny, start, wait_until, workdir
):
    """A run that saves at every update is stopped until that happens to be in a save, and then killed."""
    words = (
        "model.d_model=64",
        "train.steps=25",
        "train.checkpoint_every=1",
        "train.eval_every=1000",
        "train.keep_checkpoints=1",
    )
    whole = train_tiny(*words).directory
    checkpoints = workdir / "killed/checkpoints"
    process = start(
        "train", *tiny, *words, "run.dir=killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list(checkpoints.glob("step-*")))
    while not list(checkpoints.glob(".*.partial/model.safetensors")):
        process.send_signal(signal.SIGCONT)
        wait_until(
            lambda: list(checkpoints.glob(".*.partial/model.safetensors")) or process.poll() is not None
        )
        assert process.poll() is None, "it was never caught in a save"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)  # until it stands still
    process.kill()
    process.wait()
    assert list(checkpoints.glob(".*.partial"))

    resume(workdir / "killed")
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000025"]
    assert compare_runs(whole, workdir / "killed") == []


# The comparison itself -------------------------------------------------------------------------------


@pytest.fixture
def copies(run_directory: Path) -> tuple[Path, Path]:
    """A run and its copy."""
    return run_directory, Path(shutil.copytree(run_directory, run_directory.with_name("copy")))


def test_equal_runs_have_no_difference(copies):
    assert compare_runs(*copies) == []


def change_logged(run: Path, event: str, key: str, change) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    fact = [line for line in lines if line["event"] == event][1]
    fact[key] = change(fact[key])
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def next_float(value: float) -> float:
    return math.nextafter(value, math.inf)


@pytest.mark.parametrize(
    ("event", "key", "change", "found"),
    [
        ("step", "loss", next_float, "step 2: loss "),
        ("step", "lr", next_float, "step 2: lr "),
        ("step", "grad_norm", next_float, "step 2: grad_norm "),
        ("step", "tokens", lambda tokens: tokens + 1, "step 2: tokens 256 against 257"),
        ("evaluation", "val_loss", next_float, "step 8: val_loss "),
        ("evaluation", "is_best", lambda best: not best, "step 8: is_best True against False"),
        ("evaluation", "step", lambda step: step + 1, "evaluation lines: 2 against 2, or of other steps"),
    ],
)
def test_the_last_bit_of_a_logged_number_is_found(copies, event, key, change, found):
    change_logged(copies[1], event, key, change)
    (difference,) = compare_runs(*copies)
    assert difference.startswith(found)


@pytest.mark.parametrize("name", ["model.safetensors", "train_state/tensors.safetensors"])
def test_one_bit_of_a_tensor_is_found(copies, name):
    path = copies[1] / "checkpoints/step-00000008" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert compare_runs(*copies) == [f"{name}: the bytes differ"]


@pytest.mark.parametrize("key", ["step", "tokens", "best_loss", "best_step"])
def test_a_changed_value_is_found_but_for_the_time(copies, key):
    path = copies[1] / "checkpoints/step-00000008/train_state/values.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, key: values[key] + 1, "elapsed_seconds": 0}))
    assert compare_runs(*copies) == [f"{key}: {values[key]!r} against {values[key] + 1!r}"]


def test_a_missing_last_checkpoint_is_found(copies):
    shutil.rmtree(copies[1] / "checkpoints/step-00000008")
    assert compare_runs(*copies) == ["last checkpoint: step-00000008 against step-00000004"]


def test_a_missing_line_is_found(copies):
    log = copies[1] / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2] + lines[3:]))
    assert compare_runs(*copies) == ["step lines: 8 against 7, or of other steps"]
