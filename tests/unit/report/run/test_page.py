"""The page of runs: every number on it is one of the files; it is whole, and asks nothing of a network."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.report.run_directories import (
    CONFIG,
    evaluation,
    facts,
    loss_at,
    make_run,
    task_evaluation,
    text_evaluation,
)

from pellucid.evaluate.record import TaskEvaluation
from pellucid.report.run.find import read_runs
from pellucid.report.run.page import to_html
from pellucid.report.run.record import read_run
from pellucid.report.run.settings import differing, flat
from pellucid.report.run.write import to_dict, write_report

HOSTILE = "<script>alert('&')</script>\x1b[31m\x00</p>"


def cells(page, row):
    """The words of the table row that begins with a header."""
    found = [text for text in page.inside["tr"] if text.startswith(row)]
    assert found, page.inside["tr"]
    return found[0]


def test_the_headline_numbers_are_those_of_the_files(tmp_path, read_page):
    page = read_page(to_html([read_run(make_run(tmp_path / "r"))]))
    loss = loss_at(100) + 0.25
    told = dict(zip(page.inside["dt"], page.inside["dd"], strict=True))
    assert told == {
        "validation loss, nats/token": f"{loss:.4f}",
        "bits/byte": f"{loss / math.log(2):.4f}",
        "perplexity": f"{math.exp(loss):.2f}",
        "steps": "100",
        "tokens": "6,400",
        "time": "50.00 s",
        "parameters": "1,234",
        "training FLOPs": "3.84e+06",
        "tokens a second": "128",
        "peak memory": "5 MB",
    }
    assert page.inside["h1"] == ["r"]


def test_everything_a_run_tells_has_its_place(tmp_path, read_page):
    samples = [{"step": step, "prompt": "x", "text": f"text {step}"} for step in range(10, 100, 10)]
    scored = {
        "val": evaluation(text_evaluation([8.0, 10.0, 9.0]), tasks=(task_evaluation(),), notes=("mind this",))
    }
    page = read_page(to_html([read_run(make_run(tmp_path / "r", samples=samples, evaluations=scored))]))
    assert page.inside["h2"] == [
        "Curves",
        "Evaluations",
        "Samples over time",
        "Config",
        "Environment",
        "Data passport",
    ]
    text = scored["val"].texts[0]
    interval = text.bits_per_byte_interval
    assert f"{text.bits_per_byte:.4f}{interval.low:.4f} … {interval.high:.4f}" in cells(page, "valvalidation")
    task = scored["val"].tasks[0].interval("acc")
    assert f"0.7500{task.low:.4f} … {task.high:.4f}0.500040" in cells(page, "valpiqaacc")
    assert cells(page, "train.lr") == "train.lr0.01"
    assert cells(page, "torch") == "torch2.13"
    assert cells(page, "tokenizer.kind") == "tokenizer.kindbyte"
    assert "mind this" in page.texts
    assert [text for text in page.inside["p"] if text.startswith("text ")] == [
        f"text {step}" for step in (10, 40, 60, 90, 20, 30, 50, 70, 80)
    ]


def test_the_page_needs_nothing_else(tmp_path, read_page):
    text = to_html([read_run(make_run(tmp_path / "r"))])
    page = read_page(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & attributes.keys()]


def test_the_axes_are_chosen_without_a_script(tmp_path, read_page):
    page = read_page(to_html([read_run(make_run(tmp_path / "r"))]))
    radios = [attributes for tag, attributes in page.tags if tag == "input"]
    assert [r["id"] for r in radios] == ["against-steps", "against-tokens", "against-time", "against-compute"]
    assert ["checked" in r for r in radios] == [True, False, False, False]
    assert {a["for"] for tag, a in page.tags if tag == "label"} == {r["id"] for r in radios}
    style = "".join(page.inside["style"])
    for r in radios:
        assert f"#{r['id']}:checked ~ .{r['id']} {{ display: block; }}" in style
        assert any(a.get("class") == f"shown {r['id']}" for tag, a in page.tags if tag == "div")


def test_it_can_be_read_without_eyes(tmp_path, read_page):
    page = read_page(to_html([read_run(make_run(tmp_path / "r"))]))
    pictures = [a for tag, a in page.tags if tag == "svg" and a.get("class") == "plot"]
    assert len(pictures) == 7
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert all(a["scope"] in ("row", "col") for tag, a in page.tags if tag == "th")
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert all(a["aria-labelledby"] in ids for tag, a in page.tags if tag == "section")


def test_several_runs_are_compared(tmp_path, read_page):
    other = {**CONFIG, "train": {"steps": 100, "lr": 0.02}, "run": {"name": "other"}}
    runs = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", base=2.0, config=other)])
    page = read_page(to_html(runs))
    assert page.inside["h1"] == ["2 runs compared"]
    assert cells(page, "a").startswith(f"a{loss_at(100) + 0.25:.4f}")
    assert cells(page, "b").startswith(f"b{loss_at(100, 2.0) + 0.25:.4f}")
    assert cells(page, "train.lr") == "train.lr0.010.02"
    assert "The same in all runs." in page.texts  # environment and passport
    best = [
        text for tag, text in zip(page.tags, page.tags, strict=True) if tag[1].get("class") == "number best"
    ]
    assert best


def test_the_parts_of_a_text_are_shown_too(tmp_path, read_page):
    text = text_evaluation([8.0, 8.0, 10.0, 10.0])
    parts = replace(text, units=replace(text.units, domains=("wiki", "wiki", "code", "code")))
    page = read_page(to_html([read_run(make_run(tmp_path / "r", evaluations={"val": evaluation(parts)}))]))
    for name, loss in (("validation", 9.0), ("validation: wiki", 8.0), ("validation: code", 10.0)):
        assert cells(page, f"val{name}{loss / math.log(2) / 8:.4f}")


def test_what_summarises_to_a_perplexity_is_called_one(tmp_path, read_page):
    nll = np.array([1.0, 2.0, 3.0, 2.0])
    task = TaskEvaluation("lambada", "b" * 64, {"nll": nll}, {"nll": "perplexity"}, truncated=1)
    path = make_run(tmp_path / "r", evaluations={"val": evaluation(tasks=(task,))})
    row = cells(read_page(to_html([read_run(path)])), "vallambada")
    assert row.startswith(f"vallambadaperplexity{math.exp(2):.4f}")
    assert row.endswith("–41 cut off")  # guessing has no perplexity


@pytest.mark.parametrize(
    ("end", "says"),
    [(None, "This run has no end"), ("interrupted", "This run was interrupted"), ("finished", None)],
)
def test_a_run_that_did_not_come_to_its_end_says_so(tmp_path, end, says):
    text = to_html([read_run(make_run(tmp_path / "r", steps=30, end=end))])
    assert (says in text) if says else ('class="state"' not in text)
    assert ("(30 of 100 steps, 15.00 s)" in text) == (says is not None)


def test_a_failed_run_says_why(tmp_path, read_page):
    path = make_run(tmp_path / "r", steps=0, end=None)
    (path / "failed.txt").write_text(f"exit status 1\n{HOSTILE}")
    page = read_page(to_html([read_run(path)]))
    assert page.inside["pre"][0].startswith("exit status 1\n<script>alert")
    assert "It has made no step yet." in page.texts


def test_words_from_outside_stay_words(tmp_path, read_page):
    config = {"model": {HOSTILE.replace("\x00", ""): HOSTILE}, "train": {}}
    path = make_run(
        tmp_path / "<b>run", config=config, samples=[{"step": 1, "prompt": HOSTILE, "text": HOSTILE}],
        evaluations={"<i>": evaluation(text_evaluation([1.0, 2.0], data=HOSTILE), notes=(HOSTILE,))},
        told=[*facts(), {"event": "rollback", "step": 5, "from_step": 6, "reason": HOSTILE}],
    )  # fmt: skip
    text = to_html([read_run(path)])
    page = read_page(text)
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert not re.search("[\x00-\x08\x0b-\x1f]", text)
    assert sum("alert('&')" in words for words in page.texts) >= 5


def test_damage_is_told_on_the_page(tmp_path):
    path = make_run(tmp_path / "r")
    (path / "environment.json").write_text("{")
    assert f"Could not be read: {path / 'environment.json'}" in to_html([read_run(path)])


def test_the_numbers_as_json(tmp_path):
    (told,) = to_dict(
        [read_run(make_run(tmp_path / "r", flops_per_token=0, evaluations={"val": evaluation()}))]
    )
    assert json.loads(json.dumps(told)) == told
    assert told["val_loss"] == loss_at(100) + 0.25
    assert (told["steps"], told["state"], told["evaluations"]) == (100, "finished", ["val"])
    assert "flops" not in told


def test_a_page_of_many_steps_stays_small(tmp_path):
    path = make_run(tmp_path / "r", steps=20_000)
    (page,) = write_report([read_run(path)], tmp_path / "report.html")
    assert page.stat().st_size < 600_000


def test_keys_are_flat_and_compared():
    assert flat({"a": {"b": True, "c": [1, "x"]}, "d": ""}) == {"a.b": "true", "a.c": "[1, x]", "d": "''"}
    assert differing([{"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "d": 3}, "c": 4}]) == {
        "c": ("2", "4"),
        "a.d": ("–", "3"),
    }
