"""What an ablation found, against arithmetic by hand."""

import math
import statistics

import numpy as np
import pytest
from tests.unit.report.ablations import GAIN, NORM, SEEDS, UNITS, WIDTH, bits, losses, make, one_key, plan
from tests.unit.report.run_directories import make_run

from pellucid.evaluate.bootstrap import ratio_interval
from pellucid.report.ablation.analysis import analyse
from pellucid.report.ablation.finding import findings

T_975 = {1: 12.706205, 2: 4.302653, 3: 3.182446, 5: 2.570582}
"""Of Student's t, from a printed table."""


def test_means_and_intervals_over_seeds(tmp_path):
    rms, layer = one_key(tmp_path).results
    values = [bits(10 + shift) for shift in SEEDS]
    assert rms.mean == pytest.approx(statistics.mean(values))
    half = T_975[2] * statistics.stdev(values) / math.sqrt(3)
    assert rms.over_seeds.low == pytest.approx(statistics.mean(values) - half, rel=1e-6)
    assert rms.difference is None
    assert layer.mean - rms.mean == pytest.approx(bits(statistics.mean(GAIN)))


def test_differences_are_paired_by_seed(tmp_path):
    difference = one_key(tmp_path).results[1].difference
    assert difference.values == pytest.approx([bits(gain) for gain in GAIN])
    half = T_975[2] * statistics.stdev(difference.values) / math.sqrt(3)
    assert difference.over_seeds.half == pytest.approx(half, rel=1e-6)
    t = statistics.mean(difference.values) / (statistics.stdev(difference.values) / math.sqrt(3))
    p = 1 - t / math.sqrt(2 + t * t)  # two sides, two degrees of freedom, in closed form
    assert difference.p == pytest.approx(p, rel=1e-6)
    assert difference.corrected_p == pytest.approx(p, rel=1e-6)  # one comparison
    assert difference.verdict == "worse"


def test_the_interval_over_the_text_is_of_units_averaged_over_seeds(tmp_path):
    found = one_key(tmp_path).results[1].difference.over_text
    differences = [losses(10 + SEEDS[s] + GAIN[s]) - losses(10 + SEEDS[s]) for s in range(3)]
    expected = ratio_interval(np.mean(differences, axis=0) / math.log(2), np.full(UNITS, 8))
    assert found.value == pytest.approx(bits(0.12))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_difference_that_rests_on_few_units_is_of_this_text_only(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    found = make(tmp_path, record, lambda v, s: 10 + (v[NORM] == "layernorm") * 0.01 * (1 + s / 10),
                 wobble=lambda v: 2.0 if v[NORM] == "layernorm" else 0.0)  # fmt: skip
    difference = found.results[1].difference
    assert difference.corrected_p < 0.05
    assert difference.over_text.low < 0 < difference.over_text.high
    assert difference.verdict == "this text"
    assert "another text of the kind might say otherwise" in findings(found)[0]


def test_main_effects_average_over_all_else(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm"), WIDTH: ("1e-3", "2e-3", "4e-3")}, seeds=2)
    rate = {"1e-3": 0.0, "2e-3": -0.5, "4e-3": 0.001}
    jitter = iter(np.random.default_rng(0).normal(0, 0.02, 100))
    means = {}

    def mean_of(values, seed):
        means[values[NORM], values[WIDTH], seed] = 10 + rate[values[WIDTH]] + seed + next(jitter)
        return means[values[NORM], values[WIDTH], seed]

    effects = {(e.key, e.level): e.difference for e in make(tmp_path, record, mean_of).effects}
    assert list(effects) == [(NORM, "layernorm"), (WIDTH, "2e-3"), (WIDTH, "4e-3")]
    pairs = [means["layernorm", w, s] - means["rmsnorm", w, s] for w in rate for s in (0, 1)]
    found = effects[NORM, "layernorm"]
    assert sorted(found.values) == pytest.approx(sorted(bits(pair) for pair in pairs))
    assert found.over_seeds.half == pytest.approx(
        T_975[5] * bits(statistics.stdev(pairs)) / math.sqrt(6), rel=1e-6
    )
    assert len(effects[WIDTH, "2e-3"].values) == 4
    assert effects[WIDTH, "2e-3"].verdict == "better"
    assert effects[WIDTH, "4e-3"].verdict == "undecided"


def test_p_values_are_corrected_for_all_of_a_table(tmp_path):
    record = plan({WIDTH: ("1", "2", "3", "4")})
    noise = np.random.default_rng(3).normal(0, 0.1, (4, 3))
    found = make(tmp_path, record, lambda v, s: 10 + 0.2 * int(v[WIDTH]) + noise[int(v[WIDTH]) - 1, s])
    differences = [result.difference for result in found.results[1:]]
    raw = sorted(d.p for d in differences)
    corrected = sorted(d.corrected_p for d in differences)
    expected = [min(1, 3 * raw[0]), min(1, 2 * raw[1]), raw[2]]
    assert corrected == pytest.approx([max(expected[: k + 1]) for k in range(3)])


def test_missing_runs_are_left_out_of_pairs_and_named(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    make(tmp_path, record, lambda v, s: 10 + s, skip=("layernorm-s1", "rmsnorm-s2", "layernorm-s2"))
    failed = record.run_directory(tmp_path, record.cells[1], 1)
    failed.mkdir()
    (failed / "failed.txt").write_text("exit status 1\nout of memory\n")
    under_way = make_run(record.run_directory(tmp_path, record.cells[0], 2), steps=7, end=None)
    make_run(record.run_directory(tmp_path, record.cells[1], 2))
    found = analyse(tmp_path)
    assert {run.name: run.why for run in found.missing} == {
        "rmsnorm-s2": "stopped at step 7",
        "layernorm-s1": "failed",
        "layernorm-s2": "trained, and not scored yet",
    }
    assert under_way.name == "rmsnorm-s2"
    assert [len(result.runs) for result in found.results] == [2, 1]
    assert found.results[1].difference.verdict == "one pair"
    assert found.results[1].difference.over_seeds is None
    assert "cannot be said from one seed" in findings(found)[0]
    assert "3 of 6 runs have no score" in findings(found)[-1]


def test_a_damaged_evaluation_is_a_missing_run(tmp_path):
    one_key(tmp_path)
    path = tmp_path / "runs" / "layernorm-s0" / "evaluations" / "val.json"
    path.write_text("{")
    (run,) = analyse(tmp_path).missing
    assert run.name == "layernorm-s0"
    assert str(path) in run.why


def test_nothing_finished_is_said(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    record.write(tmp_path)
    found = analyse(tmp_path)
    assert findings(found) == ["No run is finished yet, so nothing can be said."]
    assert {run.why for run in found.missing} == {"not begun"}
    assert found.to_dict()["cells"][0]["bits_per_byte"] is None


def test_other_texts_have_no_interval_over_the_text(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    found = make(tmp_path, record, lambda v, s: 10 + s, sha_of=lambda cell: cell.name[0] * 64)
    assert found.results[1].difference.over_text is None
    assert "not scored on the same text" in findings(found)[-1]


def test_findings_are_plain_and_carry_the_numbers(tmp_path):
    found = one_key(tmp_path)
    difference = found.results[1].difference
    first, second = findings(found)
    assert first.startswith(
        f"layernorm is worse than rmsnorm by {bits(0.12):.4f} ± {difference.over_seeds.half:.4f} bits/byte "
        "over 3 seeds; the difference would not be chance (p"
    )
    assert second.endswith("It is the baseline.")


def test_what_cannot_be_told_apart_is_said_so(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    noise = (0.05, -0.06, 0.02)
    found = make(tmp_path, record, lambda v, s: 10 + (v[NORM] == "layernorm") * noise[s])
    assert findings(found)[0].startswith("layernorm and rmsnorm cannot be told apart: +0.00")
