"""What a person sees: plain lines in a file, one rewritten line on a terminal, an honest time left."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from pellucid.train.facts import EndFacts, EvaluationFacts, Request, RollbackFacts, StartFacts, StepFacts
from pellucid.train.hooks import Progress
from pellucid.train.hooks.progress import duration


def start(steps: int | None = 100) -> StartFacts:
    return StartFacts(0, "runs/x", steps, None, 10, "cpu", "fp32", False, 1, 1, 1000)


def step(number: int, *, seconds: float = 2.0, progress: float | None = None) -> StepFacts:
    done = number / 100 if progress is None else progress
    return StepFacts(number, 1.5, 1e-3, 0.7, 1000 * number, done, seconds * number, seconds, 0.0)


@pytest.fixture
def screen():
    """A console that is a terminal or not, what it shows, and a Progress that shows every step."""

    def make(*, is_terminal: bool):
        text = io.StringIO()
        progress = Progress(Console(file=text, force_terminal=is_terminal, width=200))
        progress._status._every = 0.0
        return progress, text

    return make


def test_a_step_shows_loss_rate_norm_speed_and_the_time_left(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    for number in range(1, 11):
        assert progress.on_step(step(number)) is Request.NOTHING
    line = text.getvalue().splitlines()[-1]
    assert line.startswith("step 10/100  loss 1.5000  lr 1.00e-03  grad norm 0.70  500 tokens/s")
    assert line.endswith("3 min 00 s left")  # 90 steps of 2 s


@pytest.mark.parametrize(
    ("compiled", "first", "told"), [(True, 23.0, True), (True, 2.5, False), (False, 23.0, False)]
)
def test_what_building_kernels_took_is_told_once_the_second_step_shows_it(screen, compiled, first, told):
    progress, text = screen(is_terminal=False)
    progress.on_start(replace(start(), compiled=compiled))
    progress.on_step(step(1, seconds=first))
    assert "kernels" not in text.getvalue()
    progress.on_step(step(2))
    progress.on_step(step(3))
    line = "kernels: 21 s to build or load them; torch.compile keeps them for the next run"
    assert text.getvalue().splitlines().count(line) == told


def test_time_left_after_a_resume_is_taken_from_this_session(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    progress.on_step(StepFacts(50, 1.5, 1e-3, 0.7, 1, 0.50, 1000.0, 1.0, 0.0))
    progress.on_step(StepFacts(60, 1.5, 1e-3, 0.7, 1, 0.60, 1010.0, 1.0, 0.0))
    assert text.getvalue().splitlines()[-1].endswith("40 s left")


def test_a_run_by_time_shows_no_number_of_steps(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start(None))
    progress.on_step(step(3))
    assert text.getvalue().startswith("step 3  loss")


def test_on_a_terminal_one_line_is_rewritten(screen):
    progress, text = screen(is_terminal=True)
    progress.on_start(start())
    for number in (1, 2, 3):
        progress.on_step(step(number))
    assert text.getvalue().count("\r") == 3
    assert "\n" not in text.getvalue()


def test_in_a_file_there_are_no_control_characters(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    progress.on_step(step(1))
    progress.on_evaluation(EvaluationFacts(1, 1.2345, 3.4, 1.8, 5000, True, 0.1, 2.1))
    progress.sample("first line\nsecond \x1b[31mline")
    progress.on_end(EndFacts(100, "time is up", 200.0, 100_000, 1.2, 3 << 30))
    shown = text.getvalue()
    assert all(character.isprintable() or character in "\n\N{REPLACEMENT CHARACTER}" for character in shown)
    assert "evaluation at step 1: loss 1.2345, perplexity 3.40, 1.8000 bits/byte over 5,000 tokens" in shown
    assert "best so far" in shown
    assert "first line" in shown
    assert "time is up after 100 steps, 100,000 tokens, 3 min 20 s; peak memory 3.00 GiB" in shown


def test_a_step_without_an_update_is_said_with_the_way_to_look_into_it(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    progress.on_step(replace(step(3), loss=math.nan, is_skipped=True, bundle="runs/x/bundles/step-00000003"))
    assert text.getvalue().splitlines()[-1] == (
        "step 3: loss nan, gradient norm 0.70: no update was made; look into it: pellucid replay "
        "runs/x/bundles/step-00000003"
    )


def test_a_spike_is_said_once_for_as_long_as_it_lasts(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    for number, is_spike in enumerate((False, True, True, False, True), start=1):
        progress.on_step(replace(step(number), is_spike=is_spike))
    said = [line for line in text.getvalue().splitlines() if "jumped" in line]
    assert said == ["step 2: the loss has jumped to 1.5000", "step 5: the loss has jumped to 1.5000"]


def test_a_rollback_is_said_and_leaves_the_speed_as_it_was(screen):
    progress, text = screen(is_terminal=False)
    progress.on_start(start())
    progress.on_step(step(8))
    progress.on_step(step(9))
    progress.on_rollback(RollbackFacts(4, 9, "a fault", 1, 0.5))
    progress.on_step(step(5))
    *_, said, after = text.getvalue().splitlines()
    assert said == (
        "step 9: a fault; back to the checkpoint of step 4, and on from there with 0.5 of the learning rate"
    )
    assert "500 tokens/s" in after


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 0, 0, 0), None),
        ((1, 0, 0, 1), "on the way: 1 update skipped, 1 rollback"),
        ((2000, 3, 1, 2), "on the way: 2,000 updates skipped, 3 overflows of the gradient scaler, 1 spike of the "
                          "loss, 2 rollbacks"),
    ],
)  # fmt: skip
def test_the_end_counts_what_went_wrong(screen, counts, said):
    progress, text = screen(is_terminal=False)
    progress.on_end(EndFacts(100, "finished", 200.0, 100_000, 1.2, 3 << 30, 0.0, *counts))
    lines = text.getvalue().splitlines()
    assert lines[1:] == ([said] if said else [])


def test_between_two_lines_of_a_file_ten_seconds_pass():
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=False, width=200))
    progress.on_start(start())
    for number in range(1, 50):
        progress.on_step(step(number))
    assert text.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, words):
    assert duration(seconds) == words
