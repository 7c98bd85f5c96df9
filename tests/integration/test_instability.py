"""Numbers that stop being finite, and losses that jump, in real processes: skipped, gone back from, recorded."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from pellucid import checkpoint
from pellucid.experiments.verify_resume import compare_runs
from pellucid.train.run_files import read_facts

pytestmark = pytest.mark.slow

BLOWN_UP = (
    "train.lr=1e30",
    "train.optimizer.weight_decay=0",
    "train.guard.max_skips=3",
    "train.guard.rollback_lr_factor=1e-33",
    "train.eval_every=100",
    "train.checkpoint_every=50",
)
"""One update at this rate, and no gradient is finite any more; going back once makes it 1e-3."""


def facts(run: Path, event: str) -> list[dict]:
    return [fact for fact in read_facts(run / "metrics.jsonl") if fact["event"] == event]


def test_weights_that_were_never_good_end_the_run_and_the_bundle_names_their_module(
    run_directory, tiny, pellucid, workdir
):
    loaded = checkpoint.load(checkpoint.find_checkpoint(run_directory)[0])
    with torch.no_grad():
        loaded.model.get_parameter("blocks.0.feed_forward.down.weight")[3, 5] = torch.nan
    weights = dict(loaded.model.named_parameters())
    checkpoint.save(workdir / "poisoned", checkpoint.Contents(loaded.config, weights, loaded.tokenizer))

    process = pellucid("train", *tiny, "--init", "poisoned", "train.eval_every=100", "run.dir=run")
    assert process.returncode == 1
    (error,) = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert "not finite in 5 updates in a row, and there is no good checkpoint to go back to yet" in error
    bundle = Path("run/bundles/step-00000001")
    assert f"pellucid replay {bundle}" in error
    assert "Traceback" not in process.stderr
    assert [fact["is_skipped"] for fact in facts(Path("run"), "step")] == [True] * 5

    process = pellucid("replay", bundle, "--json")
    assert process.returncode == 0
    found = json.loads(process.stdout)
    assert found["is_reproduced"] is True
    assert found["origin"]["name"] == "blocks.0.feed_forward.down"
    assert found["origin"]["input"]["not_finite"] == 0
    assert 0 < found["origin"]["numbers"]["not_finite"] < 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_after_a_rollback_it_is_the_same_run(run_directory, pellucid, start, wait_until, workdir):
    for name in ("whole", "killed"):
        shutil.copytree(run_directory, name)
    whole = pellucid("train", "--resume", "whole", *BLOWN_UP, "train.steps=150")
    assert whole.returncode == 0
    assert "back to the checkpoint of step 8" in whole.stderr
    assert "on the way: 3 updates skipped, 1 rollback" in whole.stderr

    words = (*BLOWN_UP, "train.steps=150")
    process = start(
        "train", "--resume", "killed", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: facts(workdir / "killed", "rollback") or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert facts(workdir / "killed", "step")[-1]["step"] < 150, "it was not killed in time"
    assert pellucid("train", "--resume", "killed").returncode == 0
    assert compare_runs(workdir / "whole", workdir / "killed") == []
    for run in ("whole", "killed"):
        assert [fact["rollbacks"] for fact in facts(workdir / run, "rollback")] == [1]


def test_a_loss_that_jumps_is_counted_said_and_logged(tiny, pellucid, workdir):
    """Forty updates that learn, then a rate a thousand times higher."""
    steady = (
        "train.guard.spike_window=20",
        "train.schedule.final_fraction=1",
        "train.eval_every=100",
        "train.checkpoint_every=100",
    )
    assert pellucid("train", *tiny, *steady, "train.steps=40", "run.dir=run").returncode == 0
    assert not any(fact["is_spike"] for fact in facts(Path("run"), "step"))
    process = pellucid("train", "--resume", "run", "train.lr=3", "train.steps=50")
    assert process.returncode == 0
    jumped = [fact["step"] for fact in facts(Path("run"), "step") if fact["is_spike"]]
    assert jumped
    assert f"step {jumped[0]}: the loss has jumped to" in process.stderr
    assert facts(Path("run"), "end")[-1]["spikes"] == len(jumped)
    assert f"on the way: {len(jumped)} spike" in process.stderr
