"""What an ablation found, against arithmetic by hand."""

import math
import statistics

import numpy as np
import pytest
from tests.unit.report.ablations import GAIN, NORM, SEEDS, UNITS, WIDTH, bits, losses, make, one_key, plan
from tests.unit.report.run_directories import evaluation, make_run, text_evaluation

from pellucid.evaluate.bootstrap import ratio_interval
from pellucid.report.ablation.analysis import analyse
from pellucid.report.ablation.finding import findings

T_975 = {1: 12.706205, 2: 4.302653}
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
    by_seed = [
        statistics.mean(means["layernorm", w, s] - means["rmsnorm", w, s] for w in rate) for s in (0, 1)
    ]
    found = effects[NORM, "layernorm"]
    assert found.values == pytest.approx([bits(value) for value in by_seed])
    assert found.pairs == (3, 3)
    assert found.over_seeds.half == pytest.approx(
        T_975[1] * bits(statistics.stdev(by_seed)) / math.sqrt(2), rel=1e-6
    )
    assert effects[WIDTH, "2e-3"].pairs == (2, 2)
    assert effects[WIDTH, "2e-3"].verdict == "better"
    assert effects[WIDTH, "4e-3"].verdict == "undecided"


def crossed(seeds):
    return plan({NORM: ("rmsnorm", "layernorm"), WIDTH: ("1", "2", "3", "4")}, seeds=seeds)


def test_what_pairs_of_one_seed_share_is_no_evidence(tmp_path):
    """No effect, but each seed favours one of the two in all cells alike: as independent pairs these would be sure."""
    shared = (0.2, -0.05, 0.15)
    noise = np.random.default_rng(5).normal(0, 0.01, (4, 3))
    found = make(
        tmp_path, crossed(3),
        lambda v, s: 10 + s + (v[NORM] == "layernorm") * (shared[s] + noise[int(v[WIDTH]) - 1, s]),
    )  # fmt: skip
    effect = found.effects[0]
    by_seed = [bits(shared[s] + noise[:, s].mean()) for s in range(3)]
    assert effect.difference.values == pytest.approx(by_seed)
    t = statistics.mean(by_seed) / (statistics.stdev(by_seed) / math.sqrt(3))
    assert effect.difference.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
    assert effect.difference.verdict == "undecided"
    assert "over 3 seeds, 4 combinations each" in findings(found)[0]


def test_seeds_with_other_combinations_are_averaged_over_what_they_have(tmp_path):
    worth = {"1": 0.1, "2": 0.2, "3": 0.3, "4": 0.4}
    found = make(
        tmp_path, crossed(2), lambda v, s: 10 + s + (v[NORM] == "layernorm") * (worth[v[WIDTH]] + s / 100),
        skip=("layernorm-1-s0", "rmsnorm-2-s0"),
    )  # fmt: skip
    effect = found.effects[0]
    assert effect.difference.pairs == (2, 4)
    assert effect.difference.values == pytest.approx([bits(0.35), bits(0.26)])
    assert effect.difference.over_text.value == pytest.approx(bits(0.305))  # of the same mean
    assert sorted(effect.by_combination) == pytest.approx([bits(x) for x in (0.11, 0.21, 0.305, 0.405)])
    assert "over 2 seeds, 2 to 4 combinations each" in findings(found)[0]


def test_how_far_an_effect_differs_between_combinations_is_said(tmp_path):
    worth = {"1": 0.3, "2": -0.1, "3": 0.2, "4": 0.2}
    found = make(
        tmp_path, crossed(3), lambda v, s: 10 + s + (v[NORM] == "layernorm") * (worth[v[WIDTH]] + GAIN[s])
    )
    effect = found.effects[0]
    low, high = bits(-0.1 + statistics.mean(GAIN)), bits(0.3 + statistics.mean(GAIN))
    assert effect.reach == pytest.approx((low, high))
    assert findings(found)[0].endswith(f"By combination of the other keys: {low:+.4f} … {high:+.4f}.")
    assert found.to_dict()["effects"][0]["reach"] == pytest.approx([low, high])
    assert one_key(tmp_path / "one").effects[0].reach is None


def test_one_seed_makes_no_claim_however_many_cells_there_are(tmp_path):
    found = make(tmp_path, crossed(1), lambda v, s: 10 + (v[NORM] == "layernorm") + int(v[WIDTH]) / 100)
    for effect in found.effects:
        assert (effect.difference.p, effect.difference.over_seeds) == (None, None)
        assert effect.difference.verdict == "one seed"
    said = findings(found)
    assert not any("would not be chance" in sentence for sentence in said)
    assert "over 1 seed, 4 combinations; whether that is chance cannot be said from one seed" in said[0]


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
    assert found.results[1].difference.verdict == "one seed"
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


def test_other_texts_make_no_claim(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    found = make(tmp_path, record, lambda v, s: 10 + SEEDS[s] - (v[NORM] == "layernorm") * GAIN[s],
                 sha_of=lambda cell: cell.name[0] * 64)  # fmt: skip
    difference = found.results[1].difference
    assert (difference.over_text, difference.p, difference.verdict) == (None, None, "other text")
    first, best, last = findings(found)
    assert "do not compare" in first
    assert best.endswith("the baseline, rmsnorm, was not scored on the same text.")
    assert "not scored on the same text" in last
    assert not any(word in first + best for word in ("better", "worse", "chance"))


def test_a_text_of_too_few_units_says_only_what_seeds_say(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    make(tmp_path, record, lambda v, s: 10.0)
    for number, cell in enumerate(record.cells):
        for seed in record.seeds:
            text = text_evaluation([10 + SEEDS[seed] - number * GAIN[seed]])
            evaluation(text).write(record.run_directory(tmp_path, cell, seed) / "evaluations" / "val.json")
    found = analyse(tmp_path)
    difference = found.results[1].difference
    assert (difference.over_text, difference.verdict) == (None, "seeds only")
    assert difference.corrected_p < 0.05
    first, best = findings(found)
    assert "over 3 seeds; over seeds that would not be chance" in first
    assert first.endswith("this text is too short to say more.")
    assert "would not be chance over seeds" in best


def test_the_best_cell_is_said_as_its_difference_is(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    found = make(tmp_path, record, lambda v, s: 10 + SEEDS[s] - (v[NORM] == "layernorm") * GAIN[s] / 20,
                 wobble=lambda v: 0.5)  # fmt: skip
    assert found.results[1].difference.verdict == "this text"
    first, best = findings(found)
    assert "layernorm is better than rmsnorm" in first
    assert best.endswith(
        "it and the baseline differ on this text; another text of the kind might say otherwise."
    )
    assert "cannot be told" not in best


def test_a_best_mean_of_other_seeds_is_not_called_better(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")}, seeds=4)
    high = (0.0, 0.3, -0.1, 9.0)
    found = make(tmp_path, record, lambda v, s: 10 + high[s] + (v[NORM] == "layernorm") * (*GAIN, 0)[s],
                 skip=("layernorm-s3",))  # fmt: skip
    assert found.ranked[0].cell.name == "layernorm"
    assert found.results[1].difference.verdict == "worse"
    assert "over the seeds that it shares with the baseline, rmsnorm, it is worse" in findings(found)[1]


def test_a_score_that_is_not_a_number_is_a_missing_run(tmp_path):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    found = make(tmp_path, record, lambda v, s: 10 + SEEDS[s] + (v[NORM] == "layernorm") * GAIN[s])
    path = record.run_directory(tmp_path, record.cells[1], 2) / "evaluations" / "val.json"
    evaluation(text_evaluation([math.nan] * UNITS)).write(path)
    found = analyse(tmp_path)
    assert {run.name: run.why for run in found.missing} == {"layernorm-s2": "its score is not a number"}
    assert found.results[1].difference.values == pytest.approx([bits(gain) for gain in GAIN[:2]])


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
