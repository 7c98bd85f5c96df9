"""A recorded step made again: to the bit, with what went wrong first, and what to try."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.errors import CheckpointError, TrainingError
from pellucid.experiments.replay import replay
from pellucid.train import resume
from pellucid.train.bundle import Bundle
from pellucid.train.step import Updater

DROPOUT = ("model.dropout=0.3", "train.final_dropout=0.1", "train.micro_batch=3", "train.batch_tokens=96")
BLOWN_UP = (
    "train.lr=1e30",
    "train.optimizer.weight_decay=0",
    "train.steps=16",
    "train.guard.max_rollbacks=0",
)


@pytest.fixture
def bundle(train_tiny, workdir):
    """The bundle of a run whose rate was too high by far, with further overrides."""

    def make(*words):
        run = train_tiny(*words, "run.dir=run").directory
        with pytest.raises(TrainingError):
            resume(run, BLOWN_UP, console=Console(file=io.StringIO()))
        (path,) = (run / "bundles").iterdir()
        return path

    return make


@pytest.fixture
def poisoned(train_tiny, workdir):
    """The bundle of a run that began from weights of which one is infinite."""

    def make(name, *words):
        whole = train_tiny(*words, "run.dir=whole").directory
        loaded = checkpoint.load(checkpoint.find_checkpoint(whole)[0])
        with torch.no_grad():
            loaded.model.get_parameter(name).view(-1)[0] = torch.inf
        weights = dict(loaded.model.named_parameters())
        checkpoint.save(workdir / "poisoned", checkpoint.Contents(loaded.config, weights, loaded.tokenizer))
        with pytest.raises(TrainingError, match="no good checkpoint"):
            train_tiny(*words, "run.dir=run", init=workdir / "poisoned")
        (path,) = (workdir / "run/bundles").iterdir()
        return path

    return make


def test_loss_and_norm_are_the_recorded_ones_to_the_bit_and_the_gradient_is_named(bundle):
    found = replay(bundle())
    assert found.is_reproduced
    assert found.step == 10
    assert found.loss == found.recorded_loss > 5  # finite: it is the gradient that is not
    assert (found.origin.kind, found.bad_weights, found.changes) == ("gradient", (), ())
    assert "train.precision" not in found.advice  # it is fp32 already


@pytest.mark.parametrize("words", [DROPOUT, ("train.precision=bf16", "train.optimizer.kind=sgd")])
def test_dropout_accumulation_and_formats_are_reproduced_as_well(bundle, words):
    found = replay(bundle(*words))
    assert found.is_reproduced
    assert ("train.precision=fp32" in found.advice) == ("train.precision=bf16" in words)


@pytest.mark.parametrize(
    ("weight", "module"),
    [
        ("blocks.0.feed_forward.down.weight", "blocks.0.feed_forward.down"),
        ("blocks.0.attention.key.weight", "blocks.0.attention.key"),
    ],
)
def test_the_module_of_a_bad_weight_is_named_with_what_went_in_and_out(poisoned, weight, module):
    found = replay(poisoned(weight))
    assert found.is_reproduced
    assert (found.origin.kind, found.origin.name, found.bad_weights) == ("output", module, (weight,))
    assert found.origin.input.not_finite == 0 < found.origin.numbers.not_finite
    assert "the weights were bad before this step" in found.advice


def test_scores_that_are_too_large_are_told_from_other_faults(train_tiny, workdir):
    """All weights are finite, and so are queries and keys: their products are not."""
    whole = train_tiny("run.dir=whole").directory
    loaded = checkpoint.load(checkpoint.find_checkpoint(whole)[0])
    with torch.no_grad():
        for name in ("query", "key"):
            loaded.model.get_parameter(f"blocks.0.attention.{name}.weight").mul_(1e25)
    weights = dict(loaded.model.named_parameters())
    checkpoint.save(workdir / "large", checkpoint.Contents(loaded.config, weights, loaded.tokenizer))
    with pytest.raises(TrainingError, match="no good checkpoint"):
        train_tiny("run.dir=run", init=workdir / "large")
    (path,) = (workdir / "run/bundles").iterdir()
    found = replay(path)
    assert found.is_reproduced
    assert found.bad_weights == ()
    assert (found.origin.kind, found.origin.name) == ("inside", "blocks.0.attention")
    assert "model.attention.qk_norm=true" in found.advice


def test_a_fault_of_the_machine_does_not_come_again_and_all_else_does(train_tiny, workdir, monkeypatch):
    """A gradient is spoiled from outside; dropout and the loss of that step are as they were."""
    gradients = Updater.gradients

    def spoiled(self, batch):
        loss = gradients(self, batch)
        if self.state.step == 5:
            self.state.model.final_norm.gain.grad.fill_(torch.nan)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "gradients", spoiled)
        train_tiny(*DROPOUT, "run.dir=run")
    found = replay(workdir / "run/bundles/step-00000006")
    assert found.loss == found.recorded_loss
    assert not found.is_reproduced
    assert found.origin is None
    assert found.advice == "all of it is finite here: nothing in the step itself needs a change"


def test_another_loss_than_the_recorded_one_is_no_reproduction(bundle):
    path = bundle()
    values = json.loads((path / "step.json").read_text())
    (path / "step.json").write_text(json.dumps({**values, "loss": values["loss"] + 1e-6}))
    assert not replay(path).is_reproduced


def test_another_machine_is_said(bundle):
    path = bundle()
    environment = json.loads((path / "environment.json").read_text())
    (path / "environment.json").write_text(json.dumps({**environment, "torch": "1.13.1"}))
    assert replay(path).changes == (f"torch: 1.13.1 → {torch.__version__}",)


def test_what_is_no_bundle_is_refused(workdir):
    with pytest.raises(CheckpointError, match=r"bundles lie in RUN/bundles/step-"):
        replay(workdir)


def test_the_step_can_be_made_with_another_choice(bundle, monkeypatch):
    recorded = Bundle.read(bundle("train.precision=bf16"))
    fresh = dict(recorded.config.model.build(seed=0).named_parameters())  # whose losses are not all alike
    monkeypatch.setattr(Bundle, "read", lambda path: replace(recorded, weights=fresh))
    narrow, wide = replay(Path("any")), replay(Path("any"), ["train.precision=fp32"])
    assert (narrow.asked, wide.asked) == ((), ("train.precision=fp32",))
    assert wide.loss == pytest.approx(narrow.loss, rel=0.01)
    assert wide.loss != narrow.loss
    assert wide.advice == "so made, all of it is finite: go on with train.precision=fp32"
