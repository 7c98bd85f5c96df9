"""The debug preset's first 20 losses, pinned: one list of numbers that the whole loop must reproduce."""

import io
import json

import pytest
from rich.console import Console

from pellucid.cli.options import run_config
from pellucid.train import resume, train
from pellucid.train.run_files import read_facts

TOLERANCE = 1e-3
"""Relative. Kernels of other CPUs round in another order; here the curve is met to the last bit."""


@pytest.fixture
def start(record, workdir):
    def run(name: str, hooks=()):
        config = run_config([*record.CURVE_WORDS, f"run.dir={name}"])
        return train(config, console=Console(file=io.StringIO()), hooks=hooks).directory

    return run


def told(run, event: str, key: str) -> list[float]:
    return [fact[key] for fact in read_facts(run / "metrics.jsonl") if fact["event"] == event]


def test_the_pinned_losses_are_met_and_by_a_resumed_run_to_the_bit(record, start, cut_off_after, workdir):
    pinned = json.loads(record.CURVE.read_text(encoding="utf-8"))
    whole = start("whole")
    losses, val_losses = told(whole, "step", "loss"), told(whole, "evaluation", "val_loss")
    assert losses == pytest.approx(pinned["loss"], rel=TOLERANCE)
    assert val_losses == pytest.approx(pinned["val_loss"], rel=TOLERANCE)
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 1.5, "a curve worth pinning goes down"

    cut_off_after(13, lambda hooks: start("killed", hooks))
    said = io.StringIO()
    resume(workdir / "killed", console=Console(file=said))
    assert "from step 10" in said.getvalue()
    assert told(workdir / "killed", "step", "loss")[10:] == losses[10:]
    assert told(workdir / "killed", "evaluation", "val_loss") == val_losses
