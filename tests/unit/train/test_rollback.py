"""A run whose weights are blown up goes back to its last good checkpoint, and on from there with a lower rate."""

import io
import shutil

import pytest
import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.errors import TrainingError
from pellucid.experiments.verify_resume import compare_runs
from pellucid.train import resume
from pellucid.train.averaging import WeightAverage
from pellucid.train.rollback import forget_later, newest_whole, put_back
from pellucid.train.run_files import read_facts
from pellucid.train.rundir import RunDirectory
from pellucid.train.state import TrainState

BLOWN_UP = ("train.lr=1e30", "train.optimizer.weight_decay=0", "train.guard.max_skips=3")
"""One update at this rate, and no gradient is finite any more."""
MENDED = (*BLOWN_UP, "train.guard.rollback_lr_factor=1e-33", "train.steps=16")
"""After going back once, the rate is 1e-3."""


@pytest.fixture
def trained(train_tiny, workdir):
    """Eight good updates, with a checkpoint after each fourth."""
    return train_tiny("run.dir=good").directory


@pytest.fixture
def go_on(trained, workdir):
    """Go on with a copy of those eight, by that name; returns (its directory, what was said)."""

    def run(name, *changes, hooks=()):
        said = io.StringIO()
        directory = workdir / name
        if not directory.exists():
            shutil.copytree(trained, directory)
        resume(directory, changes, console=Console(file=said, width=1000), hooks=hooks)
        return directory, said.getvalue()

    return run


def test_it_goes_back_and_finishes(go_on):
    run, said = go_on("mended", *MENDED)
    assert "step 10: loss " in said
    assert "no update was made; look into it: pellucid replay" in said
    assert (
        "step 12: loss or gradient was not finite in 3 updates in a row; back to the checkpoint of step 8, and on "
        "from there with 1e-33 of the learning rate"
    ) in said
    assert "on the way: 3 updates skipped, 1 rollback" in said
    losses = [fact["loss"] for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"]
    assert losses[-1] < losses[7]


def test_the_log_tells_the_story_that_led_to_the_weights(go_on):
    run, _ = go_on("mended", *MENDED)
    facts = list(read_facts(run / "metrics.jsonl"))
    assert [f["step"] for f in facts if f["event"] == "step"] == list(range(1, 17))
    assert [f["step"] for f in facts if f["event"] == "evaluation"] == [4, 8, 12, 16]
    (rollback,) = [f for f in facts if f["event"] == "rollback"]
    assert rollback == {
        "event": "rollback",
        "step": 8,
        "from_step": 12,
        "reason": "loss or gradient was not finite in 3 updates in a row",
        "rollbacks": 1,
        "lr_factor": 1e-33,
    }
    assert (facts[-1]["skipped"], facts[-1]["rollbacks"]) == (3, 1)


@pytest.mark.parametrize(
    ("step", "every", "words"),
    [
        pytest.param(9, 2, (), id="before it"),
        pytest.param(
            14,
            100,
            ("train.weight_average=0.9", "train.optimizer.kind=sgd", "train.optimizer.momentum=0.9"),
            id="after it",
        ),
    ],
)
def test_cut_off_about_a_rollback_it_goes_on_to_the_bit(
    train_tiny, workdir, cut_off_after, step, every, words
):
    """The run that is resumed knows nothing of the rollback, and comes to the same one."""
    often = (f"train.eval_every={every}", f"train.checkpoint_every={every}")

    def blown_up(name, hooks=()):
        directory = train_tiny(
            *words, "train.optimizer.weight_decay=0", "train.sample_tokens=3", f"run.dir={name}"
        ).directory
        resume(directory, [*MENDED, *often], console=Console(file=io.StringIO()), hooks=hooks)
        return directory

    whole, cut = blown_up("whole"), workdir / "cut"
    cut_off_after(step, lambda hooks: blown_up("cut", hooks))
    resume(cut, console=Console(file=io.StringIO()))
    assert compare_runs(whole, cut) == []
    for log, expected in (("metrics.jsonl", [1]), ("samples.jsonl", [])):
        stories = [list(read_facts(run / log)) for run in (whole, cut)]
        assert [f["rollbacks"] for f in stories[0] if f.get("event") == "rollback"] == expected
        # Each session tells its start; all else is told once.
        told = [[(f.get("event"), f["step"]) for f in s if f.get("event") != "start"] for s in stories]
        assert told[0] == told[1]
        assert len(told[0]) == len(set(told[0]))


def test_checkpoints_of_bad_weights_are_passed_over_and_removed(go_on):
    """The weights of step 9 are saved before anybody can know; they are not gone back to."""
    run, said = go_on("mended", *MENDED, "train.checkpoint_every=1", "train.keep_checkpoints=3")
    assert "back to the checkpoint of step 8" in said
    assert [p.name for p in sorted((run / "checkpoints").iterdir())][-1] == "step-00000016"
    assert (run / "latest").read_text() == "step-00000016\n"


def test_a_rate_that_stays_too_high_ends_the_run_and_says_what_to_do(go_on):
    with pytest.raises(TrainingError) as error:
        go_on("lost", *BLOWN_UP, "train.guard.max_rollbacks=2", "train.steps=16")
    said = str(error.value)
    assert "not finite in 3 updates in a row, and the run has gone back as often as it may" in said
    assert "bundles/step-00000010" in said
    assert "Lower train.lr (rollbacks had brought it to 0.25 of that)" in said
    assert error.value.exit_status == 1


def test_a_run_that_has_never_had_good_weights_ends(train_tiny, workdir):
    with pytest.raises(TrainingError, match="there is no good checkpoint to go back to yet"):
        train_tiny(*BLOWN_UP, "run.dir=hopeless")
    assert (workdir / "hopeless/bundles/step-00000002").is_dir()


def test_what_rollbacks_have_left_of_the_rate_stays_after_a_resume_and_is_said(go_on):
    run, _ = go_on("mended", *MENDED)
    _, said = go_on("mended", "train.steps=18", "train.schedule.final_fraction=1")
    assert "rollbacks have left 1e-33 of the learning rate, and so it stays" in said
    last = [fact for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"][-1]
    assert last["lr"] == pytest.approx(1e-3)


# Putting back -----------------------------------------------------------------------------------------


@pytest.fixture
def state(run_directory, tiny_config):
    """The state of some other step of the run's model, with an average and an optimizer that has been used."""
    model = checkpoint.load(run_directory / "checkpoints/step-00000008").model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.zeros((1, 2), dtype=torch.long)).sum().backward()
    optimizer.step()
    optimizer.state[model.final_norm.gain]["of another step"] = torch.ones(())
    return TrainState(model, optimizer, None, step=50, average=WeightAverage(model, 0.9))


def go_back(run_directory, state, limit):
    """As a session does: whether there was a checkpoint."""
    run = RunDirectory(run_directory)
    found = newest_whole(run, limit)
    if found is not None:
        put_back(state, found)
        forget_later(run, state)
    return found is not None


@pytest.mark.parametrize(("limit", "step"), [(3, None), (4, 4), (7, 4), (8, 8), (1000, 8)])
def test_the_newest_checkpoint_up_to_a_step_is_put_back(run_directory, state, limit, step):
    assert go_back(run_directory, state, limit) is (step is not None)
    if step is None:
        assert state.step == 50
        return
    stored = checkpoint.load_train_state(run_directory / f"checkpoints/step-{step:08}")
    assert state.step == step
    for name, parameter in state.model.named_parameters():
        assert torch.equal(parameter, stored.model[name])
    assert state.tensors().keys() == stored.tensors.keys()
    assert all(torch.equal(state.tensors()[name], tensor) for name, tensor in stored.tensors.items())
    assert (
        (run_directory / "latest").read_text() == (run_directory / "best").read_text() == f"step-{step:08}\n"
    )
    assert max(int(p.name[5:]) for p in (run_directory / "checkpoints").iterdir()) == step


def test_a_damaged_checkpoint_is_passed_over(run_directory, state):
    (run_directory / "checkpoints/step-00000008/model.safetensors").write_bytes(b"")
    assert go_back(run_directory, state, 8)
    assert state.step == 4


def test_an_average_that_the_checkpoint_has_not_begins_anew(run_directory, state):
    go_back(run_directory, state, 8)
    for name, parameter in state.model.named_parameters():
        assert torch.equal(state.average.tensors()[name], parameter)
    assert state.average.updates == 0
