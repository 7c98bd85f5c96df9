"""What follows from an outcome: counts, a bundle, a spike, a way back, an end."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pellucid.errors import TrainingError
from pellucid.train.guard import Guard, GuardConfig
from pellucid.train.health import Health
from pellucid.train.state import TrainState
from pellucid.train.step import Outcome

GOOD, BAD = Outcome(3.0, 1.0, "updated"), Outcome(math.nan, math.nan, "not finite")
OVERFLOW = Outcome(3.0, math.inf, "overflow")


class World:
    """A guard, the steps it had recorded, and what it asked to be put back."""

    def __init__(self, *, scale=None, restored=(0, 0.5, 1.0), **config):
        scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        if scaler:
            scaler.scale(torch.ones(()))  # it makes its scale when first used
        self.state, self.recorded, self.asked = TrainState(None, None, scaler), [], []
        self.restored = restored
        self.guard = Guard(GuardConfig(**config), self.state, record=self.record, restore=self.restore)

    def record(self, batch, outcome, lr, progress):
        self.recorded.append((self.state.step, batch, outcome, lr, progress))
        return Path("bundle")

    def restore(self, step):
        self.asked.append(step)
        if self.restored is None:
            return False
        self.state.step, lr_factor, mean = self.restored
        self.state.health = Health(lr_factor=lr_factor, mean=mean, losses=7, good_step=-1)
        return True

    def see(self, *outcomes):
        """The verdicts on steps that gave these outcomes."""
        found = []
        for outcome in outcomes:
            self.state.step += 1
            found.append(self.guard.judge(["batch"], outcome, lr=0.1, progress=0.5))
        return found

    def losses(self, *losses):
        """Which of these losses are spikes."""
        return [verdict.is_spike for verdict in self.see(*(Outcome(x, 1.0, "updated") for x in losses))]


# Steps without an update ------------------------------------------------------------------------------


def test_the_first_of_close_ones_is_recorded_and_each_is_counted():
    world = World(max_skips=2)
    verdicts = world.see(GOOD, BAD, GOOD, GOOD, BAD, BAD)
    assert [v.is_skipped for v in verdicts] == [False, True, False, False, True, True]
    assert [v.bundle for v in verdicts] == [None, Path("bundle"), None, None, Path("bundle"), None]
    assert world.recorded == [(2, ["batch"], BAD, 0.1, 0.5), (5, ["batch"], BAD, 0.1, 0.5)]
    assert (world.state.health.skipped, world.state.health.skipped_lately) == (3, 2)


def test_as_many_good_ones_in_a_row_make_faults_forgotten():
    world = World(max_skips=3)
    world.see(BAD, BAD, GOOD, GOOD, GOOD, BAD, BAD)
    assert world.guard.fault() is None
    world.see(BAD)
    assert world.guard.fault() == "loss or gradient was not finite in 3 updates in a row"


def test_every_other_one_is_a_fault_too_and_the_first_is_what_is_kept():
    world = World(max_skips=3)
    world.see(GOOD, BAD, GOOD, BAD, GOOD)
    assert world.guard.fault() is None
    world.see(BAD)
    assert world.guard.fault() == "loss or gradient was not finite in 3 of 5 updates"
    assert [step for step, *_ in world.recorded] == [2]


def test_an_overflow_of_a_large_scale_is_expected():
    world = World(scale=2.0)
    verdict = world.see(OVERFLOW)[0]
    assert (verdict.is_overflow, verdict.is_skipped) == (True, False)
    health = world.state.health
    assert (health.overflows, health.skipped, health.skipped_lately) == (1, 0, 0)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_overflow_without_a_scale_to_come_down_from_is_a_fault(scale):
    world = World(scale=scale)
    assert world.see(OVERFLOW)[0].is_skipped
    assert world.state.health.overflows == 0


def test_a_state_is_known_to_be_good_once_the_update_after_it_was_finite():
    world = World()
    world.see(GOOD)
    assert world.state.health.good_step == 0
    world.see(GOOD, BAD, BAD)
    assert world.state.health.good_step == 1
    world.see(GOOD)
    assert world.state.health.good_step == 4  # two steps without an update changed nothing


# Back -------------------------------------------------------------------------------------------------


def test_the_way_back_leads_to_a_good_state_and_lowers_the_rate():
    world = World(max_skips=1, restored=(2, 1.0, 4.0), rollback_lr_factor=0.25)
    world.see(GOOD, GOOD, GOOD, BAD)
    facts = world.guard.go_back("a fault")
    assert world.asked == [2]
    assert (facts.step, facts.from_step, facts.reason) == (2, 4, "a fault")
    assert (facts.rollbacks, facts.lr_factor) == (1, 0.25)
    assert world.guard.fault() is None


def test_what_happened_on_the_way_stays_counted_and_the_measure_of_the_loss_is_the_old_one():
    world = World(restored=(1, 1.0, 4.0))
    world.see(GOOD, GOOD, GOOD, BAD)
    world.guard.go_back("a fault")
    expected = Health(skipped=1, rollbacks=1, lr_factor=0.5, good_step=1, losses=7, mean=4.0)
    expected.faulty_since = 4
    assert asdict(world.state.health) == asdict(expected)


def test_each_way_back_lowers_the_rate_further_whatever_the_checkpoint_says():
    world = World(restored=(2, 1.0, 4.0), rollback_lr_factor=0.5)
    for _ in range(3):
        world.guard.go_back("a fault")
    assert world.state.health.lr_factor == 0.125


def test_the_number_of_ways_back_is_limited():
    world = World(max_skips=1, max_rollbacks=1, restored=(2, 1.0, 4.0))
    world.guard.go_back("a fault")
    world.see(BAD)
    with pytest.raises(TrainingError) as error:
        world.guard.go_back("a fault")
    said = str(error.value)
    assert said.startswith(
        "step 3: a fault, and the run has gone back as often as it may (train.guard.max_rollbacks=1)"
    )
    assert "pellucid replay bundle" in said
    assert "Lower train.lr (rollbacks had brought it to 0.5 of that)" in said


def test_without_a_good_checkpoint_there_is_no_way_back():
    world = World(restored=None)
    with pytest.raises(TrainingError, match="no good checkpoint to go back to yet"):
        world.guard.go_back("a fault")
    assert world.asked == [-1]


# Spikes -----------------------------------------------------------------------------------------------

STEADY = (3.0, 3.1, 2.9, 3.05, 2.95) * 4


def test_a_loss_far_above_the_others_is_a_spike():
    world = World(spike_window=20)
    assert not any(world.losses(*STEADY))
    assert world.losses(3.4, 3.9, 3.1) == [False, True, False]
    assert world.state.health.spikes == 1


def test_before_the_window_is_full_nothing_is():
    assert not any(World(spike_window=20).losses(*STEADY[:19], 30.0))


def test_a_falling_loss_is_none():
    assert not any(World(spike_window=10).losses(*(10 * 0.97**step for step in range(200))))


def test_a_few_spikes_do_not_hide_the_next():
    world = World(spike_window=20)
    world.losses(*STEADY)
    assert world.losses(*[30.0] * 5) == [True] * 5


def test_a_level_that_stays_is_ordinary_in_the_end():
    world = World(spike_window=20)
    world.losses(*STEADY)
    assert not world.losses(*[5.0] * 200)[-1]
