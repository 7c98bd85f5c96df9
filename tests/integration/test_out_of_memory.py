"""A process that really runs out of memory: its address space is limited when the first update begins."""

import json
import os
import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("only Linux limits the address space of a process", allow_module_level=True)

LIMITED = """
import resource, sys
import psutil
from pellucid.cli.main import main
from pellucid.train.step import Updater

gradients = Updater.gradients

def limited(self, batch):
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + 230 * 2**20,) * 2)
    return gradients(self, batch)

Updater.gradients = limited
sys.exit(main(sys.argv[1:]))
"""
"""230 MiB are left for updates. A layer keeps several tensors of 1 MiB a window: one fits of 128 windows, three of 64,
seven of 32. So what fails is always a large piece, never a small one for which torch has no answer but to abort.
"""


@pytest.fixture
def limited(workdir):
    """Run a command in a process that has little memory for its updates."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-c", LIMITED, *words],
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    return run


@pytest.fixture
def words(corpus):
    return (
        "train", "debug", f"data.path={corpus}", "model.max_seq_len=128", "model.num_layers=1",
        "model.feed_forward.d_ff=2048", "train.batch_tokens=16384", "train.steps=2",
        "train.checkpoint_every=1", "train.eval_tokens=256", "train.eval_every=100", "train.sample_tokens=0",
        "train.precision=fp32", "train.compile=false", "--json",
    )  # fmt: skip


def losses(output):
    facts = map(json.loads, output.splitlines())
    return [fact["loss"] for fact in facts if fact["event"] == "step"]


@pytest.mark.slow
def test_a_run_that_does_not_fit_says_what_to_change_and_goes_on_by_it(limited, words):
    stopped = limited(*words, "train.micro_batch=128", "run.dir=r")
    assert stopped.returncode == 1, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "error: step 1: out of memory in an update of 1 x 128 windows of 128 tokens (" in stopped.stderr
    assert "  pellucid train --resume r train.activation_checkpointing=full  " in stopped.stderr
    assert "  pellucid train --resume r train.micro_batch=64  " in stopped.stderr
    resumed = limited("train", "--resume", "r", "train.micro_batch=16", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert len(losses(resumed.stdout)) == 2


@pytest.mark.slow
def test_a_run_that_halves_goes_on_with_the_same_batches(limited, pellucid, words, workdir):
    halved = limited(*words, "train.micro_batch=128", "train.out_of_memory=halve", "run.dir=r")
    assert halved.returncode == 0, halved.stderr
    said = [line for line in halved.stderr.splitlines() if "(out of memory with " in line]
    assert said
    assert said[0] == "batch 16,384 tokens = 2 x 64 windows of 128 (out of memory with 128)"
    smaller = 128 // 2 ** len(said)
    assert f"\nmicro_batch = {smaller}\n" in (workdir / "r/config.toml").read_text()
    assert f"\nmicro_batch = {smaller}\n" in (workdir / "r/checkpoints/step-00000002/config.toml").read_text()
    straight = pellucid(*words, f"train.micro_batch={smaller}", "run.dir=s")
    assert straight.returncode == 0, straight.stderr
    assert losses(halved.stdout) == pytest.approx(losses(straight.stdout), rel=1e-6)
    assert len(losses(halved.stdout)) == 2
