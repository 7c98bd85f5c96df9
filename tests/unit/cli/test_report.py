"""`pellucid report`: one page of the newest run, of those that are named, of an ablation."""

import pytest
from tests.unit.report.ablations import one_key
from tests.unit.report.run_directories import evaluation, make_run, text_evaluation


@pytest.fixture
def runs(workdir):
    return [make_run(workdir / "runs" / name, base=base) for name, base in (("a", 1.0), ("b", 2.0))]


def test_a_trained_run_becomes_a_page(cli, run_directory, workdir):
    outcome = cli("report", run_directory, "--json")
    (told,) = outcome.json["runs"]
    assert outcome.json["files"] == ["report.html"]
    assert told["state"] == "finished"
    text = (workdir / "report.html").read_text(encoding="utf-8")
    assert f"{told['val_loss']:.4f}" in text
    assert "against training compute" in text


def test_the_newest_run_is_the_default(cli, runs, workdir):
    import os

    os.utime(runs[0] / "metrics.jsonl", (2e9, 2e9))
    assert [run["run"] for run in cli("report", "--json").json["runs"]] == ["runs/a"]


def test_several_runs_and_a_name_for_the_page(cli, runs, workdir):
    outcome = cli("report", *runs, "--out", "new/both.html")
    assert outcome.status == 0
    assert "wrote new/both.html" in outcome.err
    assert "2 runs compared" in (workdir / "new" / "both.html").read_text(encoding="utf-8")


def test_pictures_stand_in_their_folder(cli, runs, workdir):
    pytest.importorskip("matplotlib")
    files = cli("report", runs[0], "--pictures", "drawn", "--json").json["files"]
    names = {path.name for path in (workdir / "drawn").iterdir()}
    assert {"loss-steps.svg", "loss-steps.png", "throughput.svg", "throughput.png"} <= names
    assert len(files) == 1 + len(names)


def test_an_ablation_is_reported_in_its_folder(cli, workdir):
    one_key(workdir / "abl")
    told = cli("report", "abl", "--json").json
    assert told["files"][:2] == ["abl/report.html", "abl/report.md"]
    assert told["effects"][0]["level"] == "layernorm"
    assert (workdir / "abl" / "report.html").is_file()
    assert cli("report", "abl", "--out", "elsewhere.html", "--json").json["files"][0] == "elsewhere.html"


def test_an_ablation_is_given_alone(cli, runs, workdir):
    one_key(workdir / "abl")
    assert "give it on its own" in cli("report", "abl", runs[0]).error


@pytest.mark.parametrize(("words", "says"), [((), "train one first"), (("nowhere",), "nowhere: not a run")])
def test_what_is_not_there_is_named(cli, words, says):
    assert says in cli("report", *words).error


def test_a_damaged_ablation_is_named(cli, workdir):
    (workdir / "abl").mkdir()
    (workdir / "abl" / "ablation.json").write_text("{")
    assert "ablation.json: cannot be read" in cli("report", "abl").error


def test_evaluations_beside_a_run_are_on_its_page(cli, workdir):
    make_run(workdir / "r", evaluations={"mine": evaluation(text_evaluation([8.0, 9.0, 10.0]))})
    assert cli("report", "r", "--json").json["runs"][0]["evaluations"] == ["mine"]
    assert "mine" in (workdir / "report.html").read_text(encoding="utf-8")
