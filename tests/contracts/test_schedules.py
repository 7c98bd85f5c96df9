"""What every learning-rate schedule promises. A new member of the union is tested too."""

import itertools

import pytest

from pellucid.config import Config, from_tree, members, to_tree
from pellucid.optim import ConstantConfig, InverseSqrtConfig, ScheduleConfig

STEPS, WARMUP = 200, 20
SCHEDULES = members(ScheduleConfig)


@pytest.fixture(params=SCHEDULES)
def schedule_class(request: pytest.FixtureRequest) -> type[Config]:
    return SCHEDULES[request.param]


@pytest.fixture
def schedule(schedule_class: type[Config]) -> Config:
    return schedule_class(warmup_steps=WARMUP)


def factors(schedule: Config) -> list[float]:
    """The factor at every step of a run, as the training loop asks for it."""
    return [schedule.factor(step, step / STEPS) for step in range(STEPS)]


def test_every_factor_is_above_zero_and_at_most_one(schedule: Config) -> None:
    assert all(0 < factor <= 1 for factor in factors(schedule))


def test_warmup_rises_in_a_line_to_the_peak(schedule: Config) -> None:
    at_rest = [schedule.factor(step, 0.0) for step in range(WARMUP)]  # warmup alone: no progress
    assert at_rest == pytest.approx([(step + 1) / WARMUP for step in range(WARMUP)])


def test_the_rate_moves_without_jumps(schedule: Config) -> None:
    """No two neighbouring steps of a long run lie further apart than its warmup, or the start of a cooldown, asks."""
    steps = 100_000
    found = [schedule.factor(step, step / steps) for step in range(steps)]
    assert max(abs(b - a) for a, b in itertools.pairwise(found)) <= 1 / WARMUP + 1e-9
    assert max(abs(b - a) for a, b in itertools.pairwise(found[WARMUP:])) < 0.03


def test_the_rate_never_rises_after_warmup(schedule: Config) -> None:
    after = factors(schedule)[WARMUP:]
    assert after == sorted(after, reverse=True)
    assert after[0] > 0.9


def test_without_warmup_the_run_starts_at_its_peak(schedule_class: type[Config]) -> None:
    assert schedule_class(warmup_steps=0).factor(0, 0.0) == 1


@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 0.5, 1.0])
def test_the_end_is_the_final_fraction_where_there_is_one(
    schedule_class: type[Config], final_fraction: float
) -> None:
    if "final_fraction" not in schedule_class.model_fields:
        assert schedule_class in (ConstantConfig, InverseSqrtConfig)
        return
    schedule = schedule_class(warmup_steps=WARMUP, final_fraction=final_fraction)
    assert schedule.factor(STEPS, 1.0) == pytest.approx(final_fraction, abs=1e-12)


@pytest.mark.parametrize("least", [0.0, 0.1, 0.5, 1.0])
def test_after_warmup_no_rate_is_below_the_least(schedule_class: type[Config], least: float) -> None:
    key = {"final_fraction", "min_fraction"} & schedule_class.model_fields.keys()
    schedule = schedule_class(warmup_steps=WARMUP, **dict.fromkeys(key, least))
    assert min(factors(schedule)[WARMUP:]) >= (least if key else 1)


def test_it_is_a_pure_function(schedule: Config) -> None:
    """In any order, twice, and by another object with the same settings."""
    once = factors(schedule)
    backwards = [schedule.factor(step, step / STEPS) for step in reversed(range(STEPS))]
    assert backwards[::-1] == once
    assert factors(from_tree(type(schedule), to_tree(schedule))) == once


def test_by_time_as_by_steps(schedule: Config) -> None:
    """Where a run ends by time, the shape is that of its progress, whatever the step; or it knows steps alone."""
    if isinstance(schedule, InverseSqrtConfig):
        assert schedule.factor(10 * STEPS, 0.3) == schedule.factor(10 * STEPS, 0.9)
        return
    assert schedule.factor(10 * STEPS, 0.3) == schedule.factor(WARMUP, 0.3)


def test_beyond_the_end_the_rate_stays(schedule: Config) -> None:
    assert schedule.factor(STEPS, 1.2) == schedule.factor(STEPS, 1.0)


def test_every_setting_has_a_description(schedule_class: type[Config]) -> None:
    undescribed = [name for name, field in schedule_class.model_fields.items() if not field.description]
    assert undescribed == ["kind"]
