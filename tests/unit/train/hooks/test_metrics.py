"""metrics.jsonl: one fact a line; what a killed process left of it; forgetting what comes again."""

import json

import pytest

from pellucid.train.facts import EndFacts, EvaluationFacts, StartFacts, StepFacts
from pellucid.train.hooks import MetricsFile
from pellucid.train.hooks.metrics import forget_after
from pellucid.train.run_files import read_facts

START = StartFacts(0, "runs/x", 2, None, 10, "cpu", "fp32", False, 1, 1, 8)
STEPS = [StepFacts(n, 2.0 / n, 0.1, 1.0, 8 * n, n / 2, 1.0 * n, 1.0, 0.0) for n in (1, 2)]
EVALUATION = EvaluationFacts(2, 0.1 + 0.2, 1.35, 0.4, 7, True, 0.1, 2.1)
END = EndFacts(2, "finished", 2.2, 16, 0.3, 1)


@pytest.fixture
def path(tmp_path):
    """The log of a whole run of two steps."""
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.on_start(START)
    metrics.on_step(STEPS[0])
    metrics.on_step(STEPS[1])
    metrics.on_evaluation(EVALUATION)
    metrics.on_end(END)
    metrics.close()
    return path


def events(path) -> list[tuple[str, int]]:
    return [(fact["event"], fact["step"]) for fact in read_facts(path)]


def test_every_fact_is_a_line_of_json_in_order(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [f.to_dict() for f in (START, *STEPS, EVALUATION, END)]
    assert [json.loads(line)["event"] for line in lines] == ["start", "step", "step", "evaluation", "end"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_no_word_for_is_left_open(tmp_path, value):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.on_step(StepFacts(1, 2.0, 0.1, value, 8, 0.5, 1.0, 1.0, 0.0))
    metrics.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["grad_norm"] is None


def test_numbers_are_kept_to_the_bit(path):
    (evaluation,) = (fact for fact in read_facts(path) if fact["event"] == "evaluation")
    assert evaluation["val_loss"] == 0.1 + 0.2


def test_a_line_is_there_as_soon_as_it_is_told(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.on_step(STEPS[0])
    assert events(tmp_path / "metrics.jsonl") == [("step", 1)]
    metrics.close()


def test_a_second_session_adds_to_the_file(path):
    again = MetricsFile(path)
    again.on_start(START)
    again.close()
    assert len(events(path)) == 6


@pytest.mark.parametrize("cut", [2, 20, 60])
def test_a_torn_last_line_is_passed_over_and_dropped(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])  # into the "end" line
    assert events(path) == [("start", 0), ("step", 1), ("step", 2), ("evaluation", 2)]
    forget_after(path, 2)
    assert events(path) == [("start", 0), ("step", 1), ("step", 2), ("evaluation", 2)]
    assert path.read_bytes().endswith(b"}\n")


def test_a_last_line_that_lost_only_its_newline_still_counts(path):
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert events(path)[-1] == ("end", 2)


@pytest.mark.parametrize(
    ("step", "left"),
    [
        (2, [("start", 0), ("step", 1), ("step", 2), ("evaluation", 2)]),
        (1, [("start", 0), ("step", 1)]),
        (0, [("start", 0)]),
    ],
)
def test_what_is_logged_again_is_forgotten_and_the_end_with_it(path, step, left):
    before = path.read_text(encoding="utf-8").splitlines()
    forget_after(path, step)
    assert events(path) == left
    assert path.read_text(encoding="utf-8").splitlines() == before[: len(left)]


def test_a_file_without_events_is_cut_by_step_alone(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps({"step": n, "text": "\u2028 ä"}) + "\n" for n in (1, 2, 3)))
    forget_after(path, 2)
    assert [fact["step"] for fact in read_facts(path)] == [1, 2]


def test_a_missing_file_has_no_facts(tmp_path):
    assert list(read_facts(tmp_path / "none")) == []
    forget_after(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()
