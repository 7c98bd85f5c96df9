"""`pellucid evaluate --tasks`: the table, JSON, what is kept, and words and files that are at fault."""

import json

import pytest

from pellucid.evaluate.record import Evaluation

RECORDS = [{"goal": f"go {n}", "sol1": "a", "sol2": "b c", "label": n % 2} for n in range(12)]


@pytest.fixture
def piqa(workdir):
    path = workdir / "piqa.jsonl"
    # Characters that the tiny run's alphabet, the beginning of the plays, has.
    lines = [json.dumps({**record, "goal": "go on" + "!" * n}) for n, record in enumerate(RECORDS)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_task_is_a_table_with_intervals_and_chance(cli, run_directory, piqa):
    outcome = cli("evaluate", run_directory, "--tasks", f"piqa={piqa}")
    assert outcome.status == 0
    head, acc, norm, *_ = (line.split() for line in outcome.out.splitlines())
    assert head == ["task", "n", "metric", "value", "95", "%", "interval", "chance"]
    assert (acc[:3], norm[0], acc[-1]) == (["piqa", "12", "acc"], "acc_norm", "0.500")
    assert "bits/byte" not in outcome.out


def test_json_has_the_same_and_the_record_every_item(cli, run_directory, piqa):
    result = cli("evaluate", run_directory, "--tasks", f"piqa={piqa}", "--limit", 5, "--json").json
    (task,) = result["tasks"]
    assert (task["task"], task["items"]) == ("piqa", 5)
    low, high = task["metrics"]["acc"]["interval"]
    assert low <= task["metrics"]["acc"]["value"] <= high
    assert "loss" not in result
    kept = Evaluation.read(run_directory / "evaluations" / "piqa-first-5.json")
    assert kept.texts == ()
    assert kept.tasks[0].value("acc") == task["metrics"]["acc"]["value"]
    assert kept.tasks[0].items == 5


def test_a_text_is_scored_too_where_it_is_named(cli, run_directory, piqa, corpus):
    result = cli("evaluate", run_directory, "--tasks", f"piqa={piqa}", "--data", corpus, "--json").json
    assert result["loss"] > 0
    assert result["tasks"][0]["items"] == 12


def test_what_does_not_fit_the_window_is_said(cli, run_directory, piqa):
    outcome = cli("evaluate", run_directory, "--tasks", f"piqa={piqa}")
    assert "piqa: 12 of 12 items are longer than the model's window" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pica=piqa.jsonl", "there is no task 'pica'; did you mean 'piqa'?"),
        ("piqa", "--tasks piqa: name its file too"),
        ("piqa=absent.jsonl", "absent.jsonl: cannot be read: No such file"),
        ("piqa=bad.jsonl", "bad.jsonl, line 2: not JSON: "),
        ("piqa=empty.jsonl", "empty.jsonl: has no records"),
        (
            "hellaswag=piqa.jsonl",
            "piqa.jsonl, line 1: there is no field 'activity_label' (fields: goal, sol1, ",
        ),
    ],
)
def test_words_and_files_at_fault(cli, run_directory, piqa, workdir, words, message):
    (workdir / "bad.jsonl").write_text(json.dumps(RECORDS[0]) + "\n{", encoding="utf-8")
    (workdir / "empty.jsonl").write_text("", encoding="utf-8")
    outcome = cli("evaluate", run_directory, "--tasks", words)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.out == ""
