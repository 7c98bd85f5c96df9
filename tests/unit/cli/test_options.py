"""Preset, then file, then overrides, each laid over the one before."""

import pytest

from pellucid.cli.options import run_config
from pellucid.errors import ConfigError
from pellucid.optim import ConstantConfig
from pellucid.presets import run_preset


@pytest.fixture
def file(tmp_path):
    def write(text: str):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_a_preset_is_taken_as_it_is():
    assert run_config(["debug"]) == run_preset("debug")


def test_quick_takes_the_small_sibling():
    assert run_config(["sota-125m"], quick=True) == run_preset("sota-16m")


def test_an_override_wins_over_the_file_and_the_file_over_the_preset(file):
    path = file("[train]\nlr = 0.5\nsteps = 7\n[model.norm]\nkind = 'layernorm'\n")
    config = run_config(["debug", "train.lr=0.25"], config_file=path)
    assert (config.train.lr, config.train.steps, config.train.batch_tokens) == (0.25, 7, 1024)
    assert config.model.norm.kind == "layernorm"


def test_a_file_alone_is_enough(file):
    assert run_config([], config_file=file("[train]\nsteps = 3")).train.steps == 3


def test_order_of_words_and_overrides_does_not_matter_between_them():
    assert run_config(["train.lr=0.5", "debug"]) == run_config(["debug", "train.lr=0.5"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["debug", "quick"], r"'quick': one preset at a time \('debug' came first\)"),
        ([], r"name a preset or give --config FILE \(presets: debug, quick, "),
        (["debog"], r"no run preset 'debog'; did you mean 'debug'\?"),
        (["debug", "train.lr"], r"'train\.lr': one preset at a time"),
        (["debug", "=3"], r"'=3' is not an override"),
    ],
)
def test_words_that_make_no_config(words, message):
    with pytest.raises(ConfigError, match=message):
        run_config(words)


def test_a_fault_of_the_file_is_named_as_the_files(file):
    with pytest.raises(ConfigError, match=r"mine\.toml: train\.lrr: there is no such key.*'lr'"):
        run_config(["debug"], config_file=file("[train]\nlrr = 1"))


def test_a_kind_in_the_file_resets_that_table_of_the_preset(file):
    config = run_config(["debug"], config_file=file("[train.schedule]\nkind = 'constant'"))
    assert config.train.schedule == ConstantConfig()  # its own default, not the preset's 10 steps of warmup
