"""Facts → charts: what is drawn where."""

import numpy as np
import pytest
from tests.unit.report.run_directories import facts, loss_at, make_run

from pellucid.report.run.curves import axes_of, event_words, loss_charts, side_charts
from pellucid.report.run.record import read_run


@pytest.fixture
def run(tmp_path):
    return read_run(make_run(tmp_path / "r"))


def test_one_run_has_its_losses_against_all_four_axes(run):
    charts = loss_charts([run])
    assert list(charts) == ["steps", "tokens", "time", "compute"]
    ends = {key: float(found[0].series[0].x[-1]) for key, found in charts.items()}
    assert ends == pytest.approx({"steps": 100, "tokens": 6400, "time": 50.0, "compute": 600 * 6400 / 1e9})
    assert [chart.x.title for (chart,) in charts.values()] == [
        "steps", "tokens", "seconds of training", "training compute, GFLOP",
    ]  # fmt: skip
    (chart,) = charts["steps"]
    every, smooth, validation = chart.series
    assert every.y.tolist() == [loss_at(step) for step in range(1, 101)]
    assert smooth.y[50] == pytest.approx(loss_at(51))  # the median of a falling curve is its middle
    assert validation.x.tolist() == [25, 50, 75, 100]
    assert validation.y[-1] == pytest.approx(loss_at(100) + 0.25)


def test_a_validation_lies_where_its_step_lies(run):
    charts = loss_charts([run])
    assert charts["tokens"][0].series[-1].x.tolist() == [1600, 3200, 4800, 6400]
    assert charts["time"][0].series[-1].x.tolist() == [12.5, 25, 37.5, 50]


def test_without_flops_there_is_no_compute(tmp_path, run):
    old = read_run(make_run(tmp_path / "old", flops_per_token=0))
    assert [axis.key for axis in axes_of([run, old])] == ["steps", "tokens", "time"]


def test_several_runs_share_charts_and_keep_their_colours(tmp_path, run):
    other = read_run(make_run(tmp_path / "other", base=2.0))
    training, validation = loss_charts([run, other])["steps"]
    assert [(s.name, s.colour) for s in training.series] == [("r", 0), ("other", 1)]
    assert [(s.name, s.colour) for s in validation.series] == [("r", 0), ("other", 1)]
    assert validation.series[1].y[-1] - validation.series[0].y[-1] == pytest.approx(1.0)


def test_the_fall_at_the_beginning_does_not_flatten_the_rest(run):
    (chart,) = loss_charts([run])["steps"]
    assert loss_at(20) < chart.y.high < loss_at(1)
    assert f"above {chart.y.high:.2f}" in chart.note


def test_a_short_run_is_shown_whole(tmp_path):
    (chart,) = loss_charts([read_run(make_run(tmp_path / "r", steps=20))])["steps"]
    assert (chart.y.high, chart.note) == (None, "")


def test_what_the_guard_saw_is_marked(tmp_path):
    told = list(facts(steps=40, end=None))
    told = [{**f, "is_spike": True} if f["event"] == "step" and f["step"] == 10 else f for f in told]
    told = [
        {**f, "is_skipped": True, "loss": None} if f["event"] == "step" and f["step"] == 20 else f
        for f in told
    ]
    told.append({"event": "rollback", "step": 30, "from_step": 36, "reason": "diverged"})
    charts = loss_charts([read_run(make_run(tmp_path / "r", told))])
    marks = charts["steps"][0].marks
    assert [(mark.x, mark.name) for mark in marks] == [
        (10, f"step 10: loss spike, {loss_at(10):.3f}"),
        (20, "step 20 skipped: loss or gradient not finite"),
        (30, "rolled back from step 36 to 30: diverged"),
    ]
    assert [mark.x for mark in charts["time"][0].marks] == [5, 10, 15]
    assert event_words({"event": "step", "step": 1, "loss": 1.0}) == ""


def test_rate_gradient_and_speed(run):
    rate, norm, speed = side_charts([run])
    assert set(rate.series[0].y) == {0.01}
    assert set(norm.series[-1].y) == {2.0}
    assert speed.series[-1].y.tolist() == [128.0] * 100
    assert speed.x.title == "seconds of training"


def test_a_run_that_has_made_no_step_has_no_charts(tmp_path):
    run = read_run(make_run(tmp_path / "r", list(facts(steps=0, end=None))))
    assert side_charts([run]) == []
    assert all(chart.is_empty for found in loss_charts([run]).values() for chart in found)


def test_steps_without_time_leave_a_gap_in_speed(tmp_path):
    told = [{**f, "step_seconds": 0.0} if f.get("step") == 3 else f for f in facts(steps=5)]
    run = read_run(make_run(tmp_path / "r", told))
    (speed,) = [chart for chart in side_charts([run]) if chart.name == "throughput"]
    assert np.isnan(speed.series[0].y).tolist() == [False, False, True, False, False]
