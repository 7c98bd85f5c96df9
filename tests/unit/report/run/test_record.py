"""A run directory as a value: whole, under way, cut off, failed, damaged."""

import math

import numpy as np
import pytest
from filelock import FileLock
from tests.unit.report.run_directories import evaluation, facts, loss_at, make_run, text_evaluation

from pellucid.errors import DataError
from pellucid.report.run.find import find_runs, read_runs
from pellucid.report.run.page import to_html
from pellucid.report.run.record import read_run
from pellucid.report.run.write import to_dict


def test_a_finished_run_is_read_whole(tmp_path):
    samples = [{"step": 25, "prompt": "x", "text": "first"}, {"step": 50, "prompt": "x", "text": "second"}]
    scored = {"val": evaluation(text_evaluation([1.0, 2.0, 3.0]))}
    run = read_run(make_run(tmp_path / "r", samples=samples, evaluations=scored))
    assert (run.name, run.state, run.is_whole, run.faults) == ("r", "finished", True, ())
    assert (run.step, run.tokens, run.seconds, run.parameters) == (100, 6400, 50.0, 1234)
    assert run.column("loss").tolist() == [loss_at(step) for step in range(1, 101)]
    assert run.validation["step"] == 100
    assert run.best["val_loss"] == pytest.approx(loss_at(100) + 0.25)
    assert run.tokens_per_second == 128
    assert run.peak_memory_bytes == 5_000_000
    assert run.flops_per_token == 600
    assert [sample["text"] for sample in run.samples] == ["first", "second"]
    assert run.environment["torch"] == "2.13"
    assert run.evaluations["val"].texts[0].bits_per_byte == pytest.approx(6 / math.log(2) / 24)


def test_the_best_validation_need_not_be_the_last(tmp_path):
    told = [
        {"event": "evaluation", "step": step, "val_loss": loss}
        for step, loss in ((1, 2.0), (2, None), (3, 1.0), (4, 1.5))
    ]
    run = read_run(make_run(tmp_path / "r", told))
    assert (run.best["step"], run.validation["step"]) == (3, 4)


def test_what_json_has_no_number_for_is_a_gap(tmp_path):
    told = list(facts(steps=3, end=None))
    told[2] = {**told[2], "loss": None, "is_skipped": True}
    run = read_run(make_run(tmp_path / "r", told))
    assert np.isnan(run.column("loss")).tolist() == [False, True, False]


@pytest.mark.parametrize("reason", ["finished", "time is up", "interrupted"])
def test_the_end_says_how_it_ended(tmp_path, reason):
    assert read_run(make_run(tmp_path / "r", end=reason)).state == reason


def test_a_run_without_an_end_is_running_while_somebody_holds_it(tmp_path):
    path = make_run(tmp_path / "r", steps=30, end=None)
    assert read_run(path).state == "stopped"
    with FileLock(path / ".lock"):
        assert read_run(path).state == "running"
    (path / ".lock").touch()  # as a killed process leaves it
    assert read_run(path).state == "stopped"
    assert not read_run(path).is_whole


def test_a_run_that_went_on_is_not_ended_by_the_end_before(tmp_path):
    told = [*facts(steps=20, end="interrupted"), {"event": "start", "step": 20, "parameters": 99}]
    run = read_run(make_run(tmp_path / "r", told))
    assert (run.end, run.state, run.parameters) == (None, "stopped", 99)


def test_a_failed_run_tells_why(tmp_path):
    path = make_run(tmp_path / "r", steps=10, end=None)
    (path / "failed.txt").write_text("exit status 1\nout of memory\n")
    run = read_run(path)
    assert (run.state, run.failure) == ("failed", "exit status 1\nout of memory")


def test_a_half_written_line_is_passed_over(tmp_path):
    path = make_run(tmp_path / "r", steps=10, end=None)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    assert read_run(path).step == 10


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path):
    path = make_run(tmp_path / "r", evaluations={"val": evaluation()})
    (path / "environment.json").write_text("{")
    (path / "config.toml").write_text("= 1")
    (path / "evaluations" / "val.json").write_text("[]")
    run = read_run(path)
    assert run.step == 100
    assert [name in " ".join(run.faults) for name in ("environment.json", "config.toml", "val.json")] == [
        True
    ] * 3
    assert len(run.faults) == 3


def test_what_is_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=r"not a run: it has no config.toml; name a run directory"):
            read_run(path)


def test_the_newest_run_is_taken_where_none_is_named(tmp_path):
    import os

    runs = [make_run(tmp_path / "runs" / name) for name in ("a", "b", "c")]
    for age, run in zip((10, 30, 20), runs, strict=True):
        os.utime(run / "metrics.jsonl", (age, age))
    (tmp_path / "runs" / "d").mkdir()
    assert find_runs([], tmp_path / "runs") == [runs[1]]
    assert find_runs([runs[2], runs[0], runs[2]], tmp_path / "runs") == [runs[2], runs[0]]


def test_no_run_at_all_says_what_to_type(tmp_path):
    with pytest.raises(DataError, match="train one first: pellucid train quick"):
        find_runs([], tmp_path)


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [make_run(tmp_path / folder / "same") for folder in "ab"] + [make_run(tmp_path / "other")]
    assert [run.name for run in read_runs(paths)] == [str(paths[0]), str(paths[1]), "other"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("step", "x", "step is 'x', not a number"),
        ("tokens", "many", "tokens is 'many', not a number, and"),
        ("elapsed_seconds", [1], "elapsed_seconds is [1], not a number, and"),
        ("loss", "low", "loss is 'low', not a number, and"),
        ("flops_per_token", "abc", "flops_per_token is 'abc', not a number"),
        ("parameters", {"all": 3}, "parameters is {'all': 3}, not a number"),
    ],
)
def test_what_is_no_number_is_named_and_the_page_is_made_of_the_rest(tmp_path, key, value, says, read_page):
    is_damaged = (lambda fact: fact.get("step") == 30) if key == "step" else (lambda fact: key in fact)
    told = [{**fact, key: value} if is_damaged(fact) else fact for fact in facts()]
    run = read_run(make_run(tmp_path / "r", told))
    (fault,) = run.faults
    assert says in fault
    assert str(tmp_path / "r" / "metrics.jsonl") in fault
    assert run.step == 100
    page = read_page(to_html([run, read_run(make_run(tmp_path / "whole"))]))
    assert any(says in text for text in page.texts)
    assert "Curves" in page.inside["h2"]
    assert to_dict([run])[0]["steps"] == 100


def test_numbers_too_large_for_one_are_unknown(tmp_path):
    told = [{**fact, "tokens": 10**400} if fact.get("step") == 5 else fact for fact in facts()]
    run = read_run(make_run(tmp_path / "r", told))
    assert np.flatnonzero(np.isnan(run.column("tokens"))).tolist() == [4]
    assert "Curves" in to_html([run])


def test_a_config_without_tables_is_named_and_passed_over(tmp_path, read_page):
    run = read_run(make_run(tmp_path / "r", config={"data": 3, "model": {"kind": "decoder"}}))
    assert run.faults == (f"{tmp_path / 'r' / 'config.toml'}: data is 3, not a table",)
    assert run.config == {"model": {"kind": "decoder"}}
    assert any("data is 3, not a table" in text for text in read_page(to_html([run])).texts)


def test_losses_that_are_missing_for_long_are_a_gap(tmp_path):
    told = [{**f, "loss": None} if f["event"] == "step" and 40 < f["step"] < 60 else f for f in facts()]
    run = read_run(make_run(tmp_path / "r", told))
    assert run.faults == ()
    assert "Curves" in to_html([run])  # warnings of numpy would be errors here
