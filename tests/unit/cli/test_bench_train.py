"""`pellucid bench train`."""

import subprocess
import sys

import pytest

from pellucid.cli.bench import training
from pellucid.errors import TrainingError
from pellucid.experiments.bench import apart, peak


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setattr(peak, "_CPU_SHAPES", ((64, 64, 64),))


def test_one_row_is_one_json_object(cli, tiny):
    (row,) = cli("bench", "train", *tiny, "--only", "training", "--steps", 2, "--json").json["rows"]
    assert (row["name"], row["steps"], row["batch_tokens"]) == ("training", 2, 128)
    assert min(row["tokens_per_s"], row["peak_rss_mib"], row["mfu"]) > 0


def test_a_file_alone_is_what_is_measured(cli, tiny, workdir, monkeypatch):
    monkeypatch.setattr(training, "DEFAULT", ("debug", "train.batch_tokens=256"))
    (workdir / "mine.toml").write_text(cli("config", *tiny, "train.batch_tokens=64").out)
    words = ("--config", "mine.toml", "--only", "training", "--steps", 1, "--json")
    (row,) = cli("bench", "train", *words).json["rows"]
    assert row["batch_tokens"] == 64


def test_brackets_in_the_users_words_are_shown(cli, tiny, monkeypatch):
    def stop(*_, **__):
        raise TrainingError("enough")

    monkeypatch.setattr(apart, "measure_apart", stop)
    outcome = cli("bench", "train", *tiny, "data.path=[bold]plays[/bold].txt")
    assert "[bold]plays[/bold].txt" in outcome.err


def test_a_table_says_what_was_chosen(cli, tiny):
    outcome = cli("bench", "train", *tiny, "--only", "forward only", "--steps", 1)
    assert outcome.status == 0
    assert "precision fp32 (as asked)" in outcome.out
    assert "forward only" in outcome.out


def test_an_unknown_row_is_the_users_fault(cli, tiny):
    assert "there is no such row" in cli("bench", "train", *tiny, "--only", "speed").error


def test_a_wrong_key_is_said_before_a_process_starts(cli, tiny):
    assert "model.d_modle" in cli("bench", "train", *tiny, "model.d_modle=3").error


def test_help_answers_without_torch():
    code = (
        "import sys; from pellucid.cli.main import main; "
        "assert main(['bench', 'train', '--help']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_each_row_has_a_process_of_its_own(cli, tiny, workdir):
    (workdir / "more.toml").write_text("[train]\nlabel_smoothing = 0.1\n")
    rows = cli("bench", "train", *tiny, "--config", "more.toml", "--steps", 1, "--json").json["rows"]
    assert [row["name"] for row in rows] == ["training", "forward only", "activation checkpointing"]
