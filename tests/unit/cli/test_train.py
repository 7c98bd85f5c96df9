"""`pellucid train`: a run, its JSON, resuming, checking, and the words it refuses."""

import json
import sys

import pytest

from pellucid.cli.train import MODES


def test_a_run_ends_with_a_sample_and_the_next_command(cli, tiny):
    outcome = cli("train", *tiny, "train.sample_tokens=5")
    assert outcome.status == 0
    assert outcome.out.startswith("\nWhat it writes now:\n")
    assert outcome.err.splitlines()[-1].startswith("next: pellucid generate runs/debug-001 ")


def test_what_was_chosen_is_said_with_its_reason(cli, tiny):
    said = cli("train", *tiny, "train.micro_batch=2").err
    assert "device cpu (no GPU found, 1 threads)" in said
    assert "precision fp32 (as asked)" in said
    assert "torch.compile off (" in said
    assert "batch 128 tokens = 4 x 2 windows of 16" in said


def test_a_device_can_be_forced(cli, tiny):
    assert "device cpu (as asked" in cli("train", *tiny, "--device", "cpu").err


def test_json_is_one_fact_a_line_and_nothing_else(cli, tiny, workdir):
    outcome = cli("train", *tiny, "train.sample_tokens=5", "--json")
    facts = [json.loads(line) for line in outcome.out.splitlines()]
    assert [fact["event"] for fact in facts] == [
        "start", *["step"] * 4, "evaluation", *["step"] * 4, "evaluation", "end",
    ]  # fmt: skip
    logged = (workdir / "runs/debug-001/metrics.jsonl").read_text().splitlines()
    assert facts == [json.loads(line) for line in logged]


def test_seed_is_short_for_the_key(cli, tiny, workdir):
    cli("train", *tiny, "--seed", 5)
    assert "\nseed = 5\n" in (workdir / "runs/debug-001/config.toml").read_text()


@pytest.mark.parametrize(("batch", "micro_batch"), [(2, 2), ("auto", "auto")])
def test_batch_is_short_for_the_micro_batch(cli, planned, tiny, batch, micro_batch):
    assert cli("train", *tiny, "--batch", batch).status == 0
    assert [config.train.micro_batch for config in planned] == [micro_batch]


def test_a_batch_that_is_neither_a_number_nor_auto_is_refused(cli, tiny):
    for word in ("most", 0, 1.5, "true"):
        assert (
            "train.micro_batch: must be a whole number more than 0, or 'auto', not"
            in cli("train", *tiny, "--batch", word).error
        )


def test_auto_says_what_was_found(cli, tiny, workdir):
    outcome = cli("train", *tiny, "--batch", "auto")
    assert outcome.status == 0
    assert "batch 128 tokens = 1 x 8 windows of 16 (auto: the whole batch)" in outcome.err
    assert "\nmicro_batch = 8\n" in (workdir / "runs/debug-001/config.toml").read_text()


def test_a_run_can_be_resumed_longer(cli, run_directory):
    outcome = cli("train", "--resume", run_directory, "train.steps=10")
    assert outcome.status == 0
    assert "changed: train.steps: 8 → 10" in outcome.err
    assert "finished after 10 steps" in outcome.err


def test_a_run_can_start_from_anothers_weights(cli, tiny, run_directory):
    outcome = cli("train", *tiny, "--init", run_directory, "run.dir=second")
    assert outcome.status == 0


def test_check_passes_where_a_run_would_work_and_leaves_nothing(cli, tiny, workdir):
    outcome = cli("train", *tiny, "train.lr=1e-2", "--check")
    assert (outcome.status, outcome.out) == (0, "")
    assert [line.split()[0] for line in outcome.err.splitlines()[-3:]] == ["ok", "ok", "ok"]
    assert list(workdir.iterdir()) == []


def test_check_says_what_failed_and_ends_with_1(cli, tiny):
    outcome = cli("train", *tiny, "train.lr=1e-9", "--check", "--json")
    assert outcome.status == 1
    assert "FAIL learning: " in outcome.err
    assert json.loads(outcome.out)["passed"] is False


def test_the_debug_preset_passes_its_check(cli):
    assert cli("train", "debug", "--check").status == 0


@pytest.mark.parametrize("words", [[], ["train.steps=5"]])
def test_without_a_preset_and_a_terminal_the_presets_are_named(cli, workdir, words):
    message = cli("train", *words).error
    assert "name a preset, for example: pellucid train quick" in message
    assert "sota-125m" in message
    assert list(workdir.iterdir()) == []


@pytest.mark.parametrize(
    "more", [["--quick"], ["--check"], ["debug"], ["--init", "x"], ["--config", "x.toml"]]
)
def test_resume_takes_only_overrides(cli, run_directory, more):
    assert "--resume goes on with a run as it is" in cli("train", "--resume", run_directory, *more).error


@pytest.fixture
def planned(monkeypatch):
    """The configs that would have been trained."""
    configs = []
    monkeypatch.setattr(
        "pellucid.train.train", lambda config, **settings: configs.append(config) or sys.exit(0)
    )
    return configs


@pytest.mark.parametrize(
    ("answer", "preset", "steps"),
    [("quick", "quick", 600), ("16m", "sota-16m", 1000), ("full", "sota-125m", 100_000)],
)
def test_on_a_terminal_the_answer_names_the_preset(cli, planned, monkeypatch, answer, preset, steps):
    """tests/integration/test_terminal.py asks on a real one."""
    monkeypatch.setattr("pellucid.cli.train._ask_mode", lambda: MODES[answer])
    assert cli("train", "train.lr=0.5").status == 0
    (config,) = planned
    assert (config.run.name, config.train.steps, config.train.lr) == (preset, steps, 0.5)


@pytest.mark.parametrize(
    ("words", "preset"),
    [(["--quick"], "quick"), (["sota-125m", "--quick"], "sota-16m"), (["debug"], "debug")],
)
def test_quick_takes_the_small_mode_or_the_presets_small_sibling(cli, planned, words, preset):
    assert cli("train", *words).status == 0
    assert [config.run.name for config in planned] == [preset]


def test_check_and_init_do_not_go_together(cli, run_directory):
    assert "--init does not go with it" in cli("train", "debug", "--check", "--init", run_directory).error
