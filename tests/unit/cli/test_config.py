"""`pellucid config`: what a run would be, ready to be saved and given back; where two runs differ."""

import tomllib

import pytest

from pellucid.cli.options import run_config
from pellucid.config import from_tree, key_paths
from pellucid.train.config import RunConfig


def test_the_output_is_a_config_file_of_the_same_run(cli, tiny, workdir):
    outcome = cli("config", *tiny)
    assert (outcome.status, outcome.err) == (0, "")
    (workdir / "mine.toml").write_text(outcome.out, encoding="utf-8")
    assert run_config([], config_file=workdir / "mine.toml") == run_config(tiny)


def test_explained_keys_are_still_a_config_file(cli, tiny):
    outcome = cli("config", *tiny, "--explain")
    assert outcome.status == 0
    assert from_tree(RunConfig, tomllib.loads(outcome.out)) == run_config(tiny)
    assert len(outcome.out) > 2 * len(cli("config", *tiny).out)


@pytest.mark.parametrize("path", [path for path in key_paths(RunConfig) if path.count(".") == 1])
def test_every_key_is_explained(cli, path):
    presets = ("debug", "encdec-quick")  # a model of each kind
    assert f"{path.rpartition('.')[2]} " in "".join(cli("config", name, "--explain").out for name in presets)


def test_json_is_the_tree(cli, tiny):
    assert cli("config", *tiny, "--json").json["model"]["d_model"] == 16


def test_two_runs_are_compared_key_by_key(cli, tiny, run_directory):
    cli("train", *tiny, "train.seed=7", "model.d_model=32", "run.dir=other")
    lines = cli("config", "--diff", run_directory, "other").out.splitlines()
    assert {"model.d_model: 16 → 32", "train.seed: 0 → 7"} <= set(lines)
    assert cli("config", "--diff", run_directory, run_directory).out == "no differences\n"


def test_what_is_no_config_cannot_be_compared(cli, run_directory):
    assert "nowhere" in cli("config", "--diff", run_directory, "nowhere").error
