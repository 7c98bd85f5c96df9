"""torchrun's processes train one run: the numbers of one process, one set of files, one end for all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from pellucid.cli.main import main
from pellucid.train import resume
from pellucid.train.run_files import read_facts

pytestmark = pytest.mark.slow
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def start(tiny, place):
    """Start `torchrun … -m pellucid train` on the tiny run with further words, in a directory of the module's."""

    def launch(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*TORCHRUN, "-m", "pellucid", "train", *words],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    return launch


@pytest.fixture(scope="module")
def two(start, tiny, place):
    """A finished run of two processes, and what they said."""
    # A limit of time, on whose clock they agree; so far away that the rate, which follows it too, is that of no limit.
    process = start(*tiny, "train.micro_batch=2", "train.max_seconds=1000000", "run.dir=two")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return place / "two", said


def numbers(run):
    facts = [f for f in read_facts(run / "metrics.jsonl") if f["event"] in ("step", "evaluation")]
    return [[f.get(key, 0.0) for key in ("step", "loss", "val_loss", "grad_norm", "tokens")] for f in facts]


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_for_updates(run, count):
    for _ in range(1200):
        if sum(f["event"] == "step" for f in read_facts(run / "metrics.jsonl")) >= count:
            return
        time.sleep(0.1)
    pytest.fail(f"{run}: no {count} updates in two minutes")


def test_two_processes_say_and_write_what_one_does(two, train_tiny):
    run, said = two
    alone = train_tiny("train.micro_batch=4", "run.dir=alone").directory
    for ours, theirs in zip(numbers(run), numbers(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=0, abs=1e-6)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["processes"] == 2
    assert said.count("finished after 8 steps") == said.count("evaluation at step 4") == 1
    assert "128 tokens = 2 x 2 x 2 windows" in said
    assert "Warning" not in said


def test_one_process_goes_on_where_two_left_with_the_same_global_batches(two, workdir, train_tiny, capsys):
    run = shutil.copytree(two[0], workdir / "left")
    shutil.rmtree(run / "checkpoints/step-00000008")
    resume(run)
    assert "processes: 2 → 1" in capsys.readouterr().err
    for resumed, whole in zip(numbers(run), numbers(two[0]), strict=True):
        assert resumed == pytest.approx(whole, rel=0, abs=1e-6)


def test_two_processes_go_back_together(two, start, place, workdir, capsys):
    """One update at a rate of 1e30, and no gradient is finite; going back once makes the rate 1e-3."""
    words = (
        "train.lr=1e30",
        "train.optimizer.weight_decay=0",
        "train.guard.max_skips=3",
        "train.guard.rollback_lr_factor=1e-33",
        "train.steps=20",
    )
    for name in (place / "blown", workdir / "alone"):
        shutil.copytree(two[0], name)
    said, _ = (process := start("--resume", "blown", *words)).communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("back to the checkpoint of step 8") == 1
    resume(workdir / "alone", words)
    bundles = [
        sorted(path.name for path in run.glob("bundles/*")) for run in (place / "blown", workdir / "alone")
    ]
    assert bundles[0] == bundles[1] != []
    assert main(["replay", str(place / "blown/bundles" / bundles[0][0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_reproduced"] is True
    for ours, theirs in zip(numbers(place / "blown")[-12:], numbers(workdir / "alone")[-12:], strict=True):
        assert ours == pytest.approx(theirs, rel=0, abs=1e-5)


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(start, tiny, place):
    process = start(*tiny, "train.steps=100000", "train.checkpoint_every=100000", "run.dir=stopped")
    wait_for_updates(place / "stopped", 3)
    other = next(c for c in children(process) if c.environ().get("RANK") == "1")
    os.kill(other.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    end = list(read_facts(place / "stopped/metrics.jsonl"))[-1]
    assert (end["event"], end["reason"]) == ("end", "interrupted")
    assert f"step-{end['step']:08}" == (place / "stopped/latest").read_text(encoding="utf-8").strip()
    assert said.count("go on with: pellucid train --resume stopped") == 1


def test_a_process_that_dies_ends_the_others(start, tiny, place):
    process = start(*tiny, "train.steps=100000", "run.dir=died")
    wait_for_updates(place / "died", 1)
    all_of_them = children(process)
    next(c for c in all_of_them if c.environ().get("RANK") == "1").kill()
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not psutil.wait_procs(all_of_them, timeout=30)[1]


def test_a_fault_of_the_user_is_told_and_ends_all(start, tiny):
    said, _ = (process := start(*tiny, "train.batch_tokens=112")).communicate(timeout=120)
    assert process.returncode != 0
    assert "112) is 7 windows of 16 tokens, which 2 processes cannot share equally" in said
    assert "multiple of 2 x 16 = 32" in said
