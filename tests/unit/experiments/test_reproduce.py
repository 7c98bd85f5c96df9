"""Recipes: what they say, whether a run is theirs, and whether it came out as expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.cli.main import main
from pellucid.errors import ConfigError, DataError
from pellucid.experiments.reproduce import Expectation, Recipe, check, read_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
TINY = """
title = "tiny"
preset = "debug"
overrides = ["train.steps=4", "train.eval_every=2", "train.checkpoint_every=4", "train.sample_tokens=0"]
status = "measured"
provenance = "made up"
"""
EXPECTED = """
[[expected]]
metric = "val_loss"
after_steps = {step}
value = {value}
tolerance = 0.5
"""


def recipe(tmp_path: Path, *expected: tuple[int, float]) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY + "".join(EXPECTED.format(step=step, value=value) for step, value in expected))
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_can_be_read_and_planned(path: Path):
    found = read_recipe(path)
    assert found.config().train.lr > 0
    assert found.expected


def test_the_full_mode_states_its_targets_and_what_it_costs(capsys):
    assert main(["reproduce", str(RECIPES / "sota-125m.toml")]) == 0
    said = capsys.readouterr().err
    for words in (
        "not run here",
        "validation perplexity < 35 after 100,000 steps",
        "LAMBADA: 45 to 50 %",
        "1.12e+19 for the run",
        "memory in all",
    ):
        assert words in said


def test_a_recipe_is_run_checked_and_not_run_again(tmp_path: Path, capsys):
    """After four updates the loss is still near ln 257 = 5.5."""
    path, run = recipe(tmp_path, (2, 5.5), (4, 5.5)), tmp_path / "run"
    assert main(["reproduce", str(path), "--run", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.count("as expected: found 5.") == 2
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["reproduce", str(path), "--run", str(run), "--json"]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    assert '"reproduced": true' in capsys.readouterr().out

    off = recipe(tmp_path, (4, 2.0))
    assert main(["reproduce", str(off), "--run", str(run)]) == 1
    assert "NOT as expected: found 5." in capsys.readouterr().out

    other = Recipe.model_validate(
        {**read_recipe(path).model_dump(), "overrides": ("train.steps=4", "train.lr=0.5")}
    )
    path.write_text(path.read_text().replace('"train.steps=4"', '"train.steps=4", "train.lr=0.5"'))
    assert other.config().train.lr == 0.5
    assert main(["reproduce", str(path), "--run", str(run)]) == 2
    assert "train.lr: 0.5 → 0.003" in capsys.readouterr().err


def test_what_was_not_run_here_is_trained_when_asked_for(tmp_path: Path, capsys):
    path, run = recipe(tmp_path, (4, 5.5)), tmp_path / "run"
    path.write_text(path.read_text().replace('"measured"', '"not run here"'))
    assert main(["reproduce", str(path), "--run", str(run), "--json"]) == 0
    assert not run.exists()
    assert '"flops":' in capsys.readouterr().out
    assert main(["reproduce", str(path), "--run", str(run), "--anyway"]) == 0
    assert "as expected: found 5." in capsys.readouterr().out


def test_a_run_on_other_data_is_not_the_recipes(tmp_path: Path, corpus: Path, capsys):
    path, run = recipe(tmp_path, (4, 5.5)), tmp_path / "run"
    words = ["train.steps=4", "train.eval_every=2", "train.checkpoint_every=4"]
    assert (
        main(["train", "debug", *words, "train.sample_tokens=3", f"data.path={corpus}", f"run.dir={run}"])
        == 0
    )
    capsys.readouterr()
    assert main(["reproduce", str(path), "--run", str(run)]) == 2
    said = capsys.readouterr().err
    assert "was not trained by this recipe\n  data: " in said
    assert "train.sample_tokens: " not in said


def test_a_number_that_is_not_finite_is_not_as_expected(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"event": "evaluation", "step": 4, "val_loss": null}\n')
    (checked,) = check(read_recipe(recipe(tmp_path, (4, 5.5))), run)
    assert (checked.found, checked.holds) == (None, False)


def test_a_run_without_the_evaluation_is_named(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"event": "evaluation", "step": 2, "val_loss": 5.4}\n')
    found = read_recipe(recipe(tmp_path, (2, 5.5), (4, 5.5)))
    with pytest.raises(DataError, match="no evaluation after 4 steps"):
        check(found, run)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TINY, "expected"),
        (TINY + EXPECTED.format(step=3, value=1), "no evaluation is due there"),
        (TINY + EXPECTED.format(step=6, value=1), "no evaluation is due there"),
        (TINY + '[[expected]]\nmetric = "val_los"\nafter_steps = 4\nbelow = 3.0\n', "val_loss"),
        (
            TINY + '[[expected]]\nmetric = "val_loss"\nafter_steps = 4\nvalue = 3.0\n',
            "give value and tolerance",
        ),
        (TINY.replace('"debug"', '"debgu"') + EXPECTED.format(step=4, value=1), "did you mean 'debug'"),
        ("title = ", "not a TOML file"),
    ],
)
def test_faulty_recipes_are_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "faulty.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_recipe(path).config()


def test_bands_hold_their_bounds():
    around = Expectation(metric="bits_per_byte", after_steps=500, value=2.31, tolerance=0.02)
    assert [around.holds(value) for value in (2.28, 2.295, 2.325, 2.34)] == [False, True, True, False]
    below = Expectation(metric="perplexity", after_steps=1000, below=35)
    assert [below.holds(value) for value in (34.9, 35.0)] == [True, False]
    assert str(around) == "validation bits/byte 2.31 ± 0.02 after 500 steps"
    assert str(below) == "validation perplexity < 35 after 1,000 steps"
