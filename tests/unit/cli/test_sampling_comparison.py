"""`pellucid sampling-comparison`: what is compared, what is written where, and what is refused."""

import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from pellucid.generate.sampling import PRESETS
from pellucid.generate.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("run_directory")

COMPARE = ("sampling-comparison", "--prompt", "To be", "--max-new-tokens", 8)
FEW = (*COMPARE, "--strategy", "top_k", "--preset", "greedy", "--seeds", 2)


def test_the_help_names_every_strategy_and_preset(cli):
    words = " ".join(cli("sampling-comparison", "--help").out.split())
    assert ", ".join(STRATEGIES) in words
    assert ", ".join(PRESETS) in words


def test_by_default_everything_is_compared(cli):
    found = cli(*COMPARE, "--json").json
    assert [one["name"] for one in found["strategies"]] == list(dict.fromkeys([*STRATEGIES, *PRESETS]))
    assert found["seeds"] == [0, 1, 2]
    assert all(len(one["samples"]) == 3 for one in found["strategies"])


def test_texts_are_those_that_generate_writes(cli):
    found = cli(*FEW, "--seed", 5, "--json").json
    assert [one["name"] for one in found["strategies"]] == ["top_k", "greedy"]
    for sample, seed in zip(found["strategies"][0]["samples"], (5, 6), strict=True):
        settings = ("--preset", "creative", "--temperature", 1, "--top-p", 1, "--top-k", 50, "--seed", seed)
        again = cli("generate", "--prompt", "To be", "--max-new-tokens", 8, *settings, "--json").json
        assert (sample["seed"], sample["text"]) == (seed, again["text"])


def test_the_terminal_shows_figures_and_texts(cli):
    outcome = cli(*FEW)
    assert outcome.status == 0
    assert re.search(r"^top_k( +\S+){9}$", outcome.out, re.MULTILINE)
    assert "seed 0" in outcome.out
    assert "every seed" in outcome.out
    assert max(map(cell_len, outcome.out.splitlines())) <= 80
    assert "(the run's best by validation loss); device cpu (no GPU found" in outcome.err
    assert "next: pellucid generate runs/mine/checkpoints/step-" in outcome.err.replace("\\", "/")


def test_the_page_is_written_to_the_file_alone_and_is_the_same_each_time(cli, workdir):
    outcome = cli(*FEW, "--html", "pages/one.html")
    assert (outcome.status, outcome.out) == (0, "")
    assert f"wrote {Path('pages/one.html')}: open it in a browser" in outcome.err
    assert len(cli(*FEW, "--html", "two.html", "--json").json["strategies"]) == 2
    page = (workdir / "pages/one.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page == (workdir / "two.html").read_text(encoding="utf-8")
    assert "runs/mine/checkpoints/" in page.replace("\\", "/")


def test_of_a_prompt_longer_than_the_context_the_end_is_read_and_that_is_said(cli):
    outcome = cli(*FEW, "--prompt", "x" * 40, "--json")
    assert (outcome.json["prompt_tokens"], outcome.json["prompt_tokens_read"]) == (40, 8)
    assert "the prompt has 40 tokens and the context 16: only the last 8 were read" in outcome.err


def test_bf16_weights_can_be_asked_for(cli):
    outcome = cli(*FEW, "--dtype", "bf16", "--json")
    assert outcome.json["dtype"] == "bf16"
    assert "weights in bf16" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "topk"], "there is no sampling strategy 'topk'; did you mean 'top_k'?"),
        (["--preset", "wild"], "there is no sampling preset 'wild' (presets: greedy"),
        (["--device", "tpu"], "--device tpu: there is no such device"),
        (["--prompt", "caf\udce9"], "surrogate"),
        (["runs/none"], "runs/none: no such run or checkpoint"),
    ],
)
def test_what_cannot_be_compared_is_named(cli, words, message):
    assert message in cli(*COMPARE, *words).error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampling-comparison"], "--prompt"),
        ([*COMPARE, "--seeds", "0"], "--seeds"),
        ([*COMPARE, "--seed", "-1"], "--seed"),
        ([*COMPARE, "--max-new-tokens", "0"], "--max-new-tokens"),
    ],
)
def test_words_that_cannot_be_understood_end_with_2(cli, words, message):
    outcome = cli(*words)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_page_that_cannot_be_written_is_an_error(cli, workdir):
    (workdir / "file").write_text("")
    assert cli(*FEW, "--html", "file/page.html").status == 2
