"""What follows what, and when it ends: the loop with a made-up update and a made-up clock."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pellucid.errors import TrainingError
from pellucid.evaluate.perplexity import Perplexity
from pellucid.optim import ConstantConfig, CosineConfig, LinearConfig
from pellucid.train import loop as loop_module
from pellucid.train.facts import Request, StartFacts
from pellucid.train.guard import Guard, GuardConfig
from pellucid.train.hooks import Hook, InterruptedWorkError
from pellucid.train.loop import Limits, Loop
from pellucid.train.state import TrainState
from pellucid.train.step import Outcome

PEAK = 0.1
START = StartFacts(0, "run", None, None, 1, "cpu", "fp32", False, 1, 1, 10)


class Recorder(Hook):
    """Writes down every event; answers a step or an evaluation as it was told to."""

    def __init__(self, log, requests=None):
        self.log, self.requests = log, requests or {}

    def on_start(self, facts):
        self.log.append(("start", facts.step))

    def on_step(self, facts):
        self.log.append(("step", facts.step))
        return self.requests.get(("step", facts.step), Request.NOTHING)

    def on_evaluation(self, facts):
        self.log.append(("evaluation", facts.step, facts.val_loss, facts.is_best))
        return self.requests.get(("evaluation", facts.step), Request.NOTHING)

    def on_rollback(self, facts):
        self.log.append(("rollback", facts.from_step, facts.step))

    def on_end(self, facts):
        self.log.append(("end", facts.step, facts.reason))


class World:
    """A loop whose update takes a second, whose evaluation takes two, and whose losses are given.

    faulty: the numbers of the updates, counted as they are made, whose gradient is not finite.
    """

    def __init__(self, monkeypatch, *, steps=None, seconds=None, schedule=None, eval_every=1000, losses=(1.0,),
                 requests=None, done=0, elapsed=0.0, faulty=(), max_rollbacks=3):  # fmt: skip
        self.now, self.log, self.lrs, self.batches = 100.0, [], [], []
        monkeypatch.setattr(loop_module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.state = TrainState(None, None, None, step=done, elapsed_seconds=elapsed)
        self.losses, self.faulty, self.saved = iter(losses), faulty, []
        guard = GuardConfig(max_skips=2, rollback_lr_factor=0.5, max_rollbacks=max_rollbacks)
        self.loop = Loop(
            state=self.state,
            update=self.update,
            loader=SimpleNamespace(step=lambda step: [step], waited_s=0.0),
            evaluate=self.evaluate,
            save=self.save,
            guard=Guard(guard, self.state, record=lambda *step: None, restore=self.restore),
            hooks=[Recorder(self.log, requests), Recorder([])],
            limits=Limits(steps, seconds),
            schedule=schedule or ConstantConfig(warmup_steps=0),
            peak_lr=PEAK,
            eval_every=eval_every,
            device_type="cpu",
        )

    def update(self, batch, lr):
        self.batches += batch
        self.lrs.append(lr)
        self.now += 1
        self.state.step += 1
        self.state.tokens += 10
        if len(self.lrs) in self.faulty:
            return Outcome(2.0, math.nan, "not finite")
        return Outcome(2.0, 0.5, "updated")

    def save(self):
        self.log.append(("save", self.state.step))
        self.saved.append(self.state.step)

    def restore(self, step):
        earlier = [saved for saved in self.saved if saved <= step]
        if earlier:
            self.state.step = earlier[-1]
        return bool(earlier)

    def evaluate(self):
        self.now += 2
        loss = next(self.losses)
        return Perplexity(loss, math.exp(loss), loss, 7, 7)

    def run(self):
        return self.loop.run(START, clock_start=self.now)


# Length ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "seconds", "step", "elapsed", "progress", "reason"),
    [
        (10, None, 4, 99.0, 0.4, None),
        (10, None, 10, 0.0, 1.0, "finished"),
        (10, None, 12, 0.0, 1.0, "finished"),
        (None, 50.0, 999, 20.0, 0.4, None),
        (None, 50.0, 1, 50.1, 1.0, "time is up"),
        (10, 50.0, 4, 40.0, 0.8, None),
        (10, 50.0, 9, 10.0, 0.9, None),
        (10, 50.0, 10, 60.0, 1.0, "finished"),
    ],
)
def test_progress_is_that_of_the_nearer_limit(steps, seconds, step, elapsed, progress, reason):
    limits, state = Limits(steps, seconds), TrainState(None, None, None, step=step, elapsed_seconds=elapsed)
    assert limits.progress(state) == pytest.approx(progress)
    assert limits.reached(state) == reason


def test_a_run_by_steps_asks_for_each_batch_once_and_ends(monkeypatch):
    world = World(monkeypatch, steps=5)
    end = world.run()
    assert world.batches == [0, 1, 2, 3, 4]
    assert (end.step, end.tokens, end.reason, end.elapsed_seconds) == (5, 50, "finished", 7.0)
    assert end.peak_memory_bytes > 10_000_000


def test_a_resumed_run_goes_on_with_the_batch_of_its_step_and_its_time(monkeypatch):
    world = World(monkeypatch, steps=5, done=3, elapsed=20.0)
    assert world.run().elapsed_seconds == 24.0
    assert world.batches == [3, 4]


def test_a_run_that_is_over_makes_no_update(monkeypatch):
    world = World(monkeypatch, steps=5, done=5)
    assert world.run().reason == "finished"
    assert world.log == [("start", 0), ("end", 5, "finished")]


def test_a_run_by_time_ends_at_its_time_with_the_rate_decayed(monkeypatch):
    world = World(monkeypatch, seconds=100, schedule=CosineConfig(warmup_steps=0, final_fraction=0.02))
    end = world.run()
    assert (end.reason, end.step) == ("time is up", 100)
    assert world.lrs[0] == PEAK
    assert world.lrs[50] == pytest.approx(PEAK * 0.51)
    assert world.lrs[-1] == pytest.approx(PEAK * 0.02, rel=0.02)


def test_evaluations_count_as_time(monkeypatch):
    world = World(monkeypatch, seconds=30, eval_every=1, losses=[1.0] * 20)
    assert 30 <= world.run().elapsed_seconds <= 30 + 3  # at most one more update with its evaluation


def test_the_earlier_of_two_limits_ends_the_run_and_shapes_its_schedule(monkeypatch):
    world = World(
        monkeypatch, steps=1000, seconds=10, schedule=LinearConfig(warmup_steps=0, final_fraction=0)
    )
    assert world.run().reason == "time is up"
    assert world.lrs == pytest.approx([PEAK * (1 - t / 10) for t in range(10)])


def test_the_rate_warms_up_and_decays_over_the_steps(monkeypatch):
    world = World(monkeypatch, steps=10, schedule=LinearConfig(warmup_steps=4, final_fraction=0.5))
    world.run()
    assert world.lrs == pytest.approx([PEAK * min(1, (s + 1) / 4) * (1 - 0.5 * s / 10) for s in range(10)])


# Events ----------------------------------------------------------------------------------------------


def test_events_come_in_order_and_the_end_is_evaluated_and_saved(monkeypatch):
    world = World(monkeypatch, steps=5, eval_every=2, losses=[3.0, 1.0, 2.0])
    end = world.run()
    assert world.log == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("evaluation", 2, 3.0, True),
        ("step", 3),
        ("step", 4),
        ("evaluation", 4, 1.0, True),
        ("step", 5),
        ("evaluation", 5, 2.0, False),
        ("save", 5),
        ("end", 5, "finished"),
    ]
    assert (end.best_loss, world.state.best_step) == (1.0, 4)


def test_a_hook_may_ask_to_save_after_a_step_or_an_evaluation(monkeypatch):
    requests = {("step", 1): Request.SAVE, ("evaluation", 3): Request.SAVE}
    world = World(monkeypatch, steps=5, eval_every=3, losses=[1.0, 1.0], requests=requests)
    world.run()
    assert [event for event in world.log if event[0] == "save"] == [("save", 1), ("save", 3), ("save", 5)]
    assert world.log.index(("save", 3)) > world.log.index(("evaluation", 3, 1.0, True))


def test_a_hook_may_ask_to_stop_and_then_the_run_is_saved_without_a_last_evaluation(monkeypatch):
    world = World(monkeypatch, steps=5, requests={("step", 2): Request.SAVE | Request.STOP})
    assert world.run().reason == "interrupted"
    assert world.log == [("start", 0), ("step", 1), ("step", 2), ("save", 2), ("end", 2, "interrupted")]


def test_an_update_that_is_left_because_of_a_signal_is_not_counted_and_the_run_is_saved(monkeypatch):
    world = World(monkeypatch, steps=9, eval_every=2, losses=(1.0,) * 9)
    update = world.update

    def interrupted(batch, lr):
        if len(world.lrs) == 3:
            raise InterruptedWorkError
        return update(batch, lr)

    world.loop = replace(world.loop, update=interrupted)
    end = world.run()
    assert (end.reason, end.step) == ("interrupted", 3)
    assert world.log[-3:] == [("step", 3), ("save", 3), ("end", 3, "interrupted")]
    assert not world.state.evaluation_due


def test_a_run_that_is_stopped_at_its_last_step_is_finished(monkeypatch):
    world = World(monkeypatch, steps=2, requests={("step", 2): Request.STOP})
    assert world.run().reason == "finished"


def test_an_equal_loss_is_not_a_new_best(monkeypatch):
    world = World(monkeypatch, steps=2, eval_every=1, losses=[1.0, 1.0])
    world.run()
    assert world.state.best_step == 1


# Numbers that are not finite --------------------------------------------------------------------------


def test_a_step_without_an_update_is_counted_and_not_saved(monkeypatch):
    requests = {("step", 2): Request.SAVE, ("step", 3): Request.SAVE}
    world = World(monkeypatch, steps=5, faulty=[2], requests=requests)
    end = world.run()
    assert [event for event in world.log if event[0] == "save"] == [("save", 3), ("save", 5)]
    assert (end.step, end.skipped, end.rollbacks) == (5, 1, 0)


def test_a_step_without_an_update_is_saved_when_the_run_is_stopped(monkeypatch):
    world = World(monkeypatch, steps=5, faulty=[2], requests={("step", 2): Request.STOP})
    assert world.run().reason == "interrupted"
    assert world.saved == [2]


def test_after_a_row_of_faults_the_run_goes_back_and_on_with_a_lower_rate(monkeypatch):
    world = World(monkeypatch, steps=6, faulty=[4, 5], requests={("step", 2): Request.SAVE})
    end = world.run()
    assert ("rollback", 5, 2) in world.log
    assert world.batches == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert world.lrs == [PEAK] * 5 + [PEAK / 2] * 4
    assert (end.step, end.skipped, end.rollbacks) == (6, 2, 1)


def test_a_run_does_not_finish_on_a_row_of_faults(monkeypatch):
    world = World(monkeypatch, steps=5, faulty=[4, 5], requests={("step", 2): Request.SAVE}, losses=[1.0])
    assert world.run().reason == "finished"
    assert world.log[-4:] == [("step", 5), ("evaluation", 5, 1.0, True), ("save", 5), ("end", 5, "finished")]
    assert len(world.lrs) == 8


def test_a_run_that_has_gone_back_often_enough_fails(monkeypatch):
    world = World(
        monkeypatch, steps=9, faulty=[4, 5, 7, 8], requests={("step", 2): Request.SAVE}, max_rollbacks=1
    )
    with pytest.raises(
        TrainingError, match=r"2 updates in a row, and the run has gone back as often as it may"
    ):
        world.run()
    assert world.saved == [2]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_sends_the_run_back_too(monkeypatch, loss):
    requests = {("step", 2): Request.SAVE}
    world = World(monkeypatch, steps=4, eval_every=2, losses=[1.0, loss, 2.0], requests=requests)
    monkeypatch.setattr(math, "exp", lambda x: x)
    assert world.run().rollbacks == 1
    assert [event for event in world.log if event[0] in ("evaluation", "rollback", "save")] == [
        ("evaluation", 2, 1.0, True),
        ("save", 2),
        ("rollback", 4, 2),
        ("evaluation", 4, 2.0, False),
        ("save", 4),
    ]


def test_an_evaluation_makes_its_step_good_but_not_inside_a_row_of_faults(monkeypatch):
    """Weights inside a row may be what it comes from: a checkpoint of them must not be what it goes back to."""
    requests = {("evaluation", 2): Request.SAVE, ("evaluation", 4): Request.SAVE}
    world = World(monkeypatch, steps=6, eval_every=2, losses=[1.0] * 9, faulty=[4, 5], requests=requests)
    good = []
    world.loop.hooks[1].on_evaluation = lambda facts: (
        good.append((facts.step, world.state.health.good_step)) or Request.NOTHING
    )
    world.run()
    assert good[:2] == [(2, 2), (4, 2)]  # the third update was finite, which vouches for step 2 only
    assert world.saved[:2] == [2, 4]
    assert ("rollback", 5, 2) in world.log


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_without_a_checkpoint_it_ends_the_run_and_saves_nothing(monkeypatch, loss):
    world = World(monkeypatch, steps=4, eval_every=2, losses=[1.0, loss])
    monkeypatch.setattr(math, "exp", lambda x: x)
    with pytest.raises(
        TrainingError, match=r"step 4: the validation loss is (nan|inf), and there is no good"
    ):
        world.run()
    assert world.saved == []
    assert world.state.best_loss == 1.0
