"""A run's config: what cannot be, said in one line with the way out."""

import re
import shlex
import tomllib

import pytest

from pellucid.config import from_tree, override, to_toml, to_tree
from pellucid.data.objectives import sentinel_names
from pellucid.errors import ConfigError, DataError
from pellucid.presets import run_preset
from pellucid.train.config import RunConfig
from pellucid.train.opening import build_objective, open_data


def debug_with(*words: str) -> RunConfig:
    return from_tree(RunConfig, override(to_tree(run_preset("debug")), words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.batch_tokens=1000"], r"train\.batch_tokens \(1000\) is not a multiple .*\(64\); try 960 or 1024"),
        (["train.batch_tokens=10"], r"train\.batch_tokens \(10\) is not a multiple .*\(64\); try 64"),
        (["train.micro_batch=5"], r"micro_batch \(5\) does not divide the 16 windows.*choose one of 1, 2, 4, 8, 16"),
        (["train.seq_len=65"], r"train\.seq_len \(65\) is more than model\.max_seq_len \(64\)"),
        (["train.epochs=2"], r"train: steps and epochs both say how long; give one of them"),
        (["train.tokens=9"], r"train: steps and tokens both say how long; give one of them .*train\.steps=, takes"),
        (["train.tokens=9", "train.epochs=2"], r"train: steps and epochs and tokens all say how long"),
        (["train.schedule.warmup_tokens=9"], r"train\.schedule: warmup_steps and warmup_tokens both"),
        (["train.optimizer.decayed_roles=['matrices']"], r"decayed_roles: no parameter has the role 'matrices'"),
        (["train.steps="], r"train: nothing says how long; give steps, epochs, tokens or max_seconds"),
        (["model.num_heads=3"], r"d_model \(64\) is not divisible by num_heads \(3\)"),
        (["train.lr=0"], r"train\.lr: .*\b0, not 0$"),
        (["train.steps=0"], r"train\.steps: .*\b0, not 0$"),
        (["train.grad_clip=-1"], r"train\.grad_clip: .*\b0, not -1$"),
        (["train.label_smoothing=1"], r"train\.label_smoothing: .*less than 1, not 1$"),
        (["train.precision=bf61"], r"train\.precision: .*'bf61'; did you mean 'bf16'\?"),
        (["train.learning_rate=1"], r"train\.learning_rate: there is no such key.*keys: .*\blr\b"),
        (["train.scedule.kind=cosine"], r"train\.scedule: there is no such key; did you mean 'schedule'"),
        (["train.schedule.kind=cosin"], r"train\.schedule\.kind: .*'cosin'; did you mean 'cosine'"),
        (["train.schedule.kind=constant", "train.schedule.final_fraction=0"], r"final_fraction: there is no such key"),
        (["train.schedule.final_fraction=0", "train.schedule.kind=linear"], r"would drop train\.schedule\.final"),
        (["run.name=a/b"], r"run\.name: .*pattern.*'a/b'"),
        (["run.name=../x"], r"run\.name: .*pattern"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_that_names_the_key(words, message):
    with pytest.raises(ConfigError, match=message) as error:
        debug_with(*words)
    assert "\n" not in str(error.value)


def test_several_faults_are_a_line_each():
    with pytest.raises(ConfigError) as error:
        debug_with("train.lr=-1", "train.grad_clip=-1", "model.bias=maybe")
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "model.bias",
        "train.lr",
        "train.grad_clip",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["train.steps=", "train.epochs=0.5"],
        [
            "train.steps=",
            "train.tokens=5000",
            "train.schedule.warmup_steps=",
            "train.schedule.warmup_tokens=100",
        ],
        ["train.optimizer.kind=muon", "train.optimizer.decayed_roles=['matrix', 'bias']"],
        ["train.steps=", "train.max_seconds=3"],
        ["train.max_seconds=3"],
        ["train.seq_len=32", "train.batch_tokens=96", "train.micro_batch=3"],
    ],
)
def test_what_can_be_survives_toml(words):
    config = debug_with(*words)
    assert from_tree(RunConfig, tomllib.loads(to_toml(config))) == config


ENCODER_DECODER = ("model.kind=encoder_decoder", "model.max_seq_len=64")
SPANS = (*ENCODER_DECODER, "data.objective.kind=span_corruption")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train.compile=true", "train.activation_checkpointing=selective"],
            r"train\.compile: .* train\.activation_checkpointing 'selective'; leave one of them out",
        ),
        (
            SPANS,
            r"data\.tokenizer\.special_tokens: data\.objective\.kind 'span_corruption' needs 4 sentinels for windows "
            r"of 64 ids.* lacks 4 .*special_tokens='\[\"<extra_id_0>\", .*, \"<extra_id_3>\"\]'",
        ),
        (
            [*SPANS, 'data.tokenizer.special_tokens=["<extra_id_0>", "<extra_id_1>", "<extra_id_3>"]'],
            r"needs 4 sentinels .* lacks 1 of them",
        ),
        (
            [*SPANS, "train.seq_len=2"],
            r"train\.seq_len \(2; .*data\.objective\.kind 'span_corruption' .* raise it",
        ),
        (
            ["data.objective.kind=prefix", "train.seq_len=1"],
            r"train\.seq_len .*data\.objective\.kind 'prefix' cuts windows in two, and 1 cannot",
        ),
        (
            ["model.kind=encoder_decoder", "data.objective.kind=prefix", "model.max_seq_len=1"],
            r"model\.max_seq_len\): data\.objective\.kind 'prefix'",
        ),
    ],
)
def test_choices_that_exclude_each_other_are_refused_with_the_config_naming_both(words, message):
    with pytest.raises(ConfigError, match=message) as error:
        debug_with(*words)
    assert "\n" not in str(error.value)


def test_the_override_that_a_message_gives_is_the_remedy():
    with pytest.raises(ConfigError) as error:
        debug_with(*SPANS)
    (word,) = re.findall(r"give (data\S+='\[.*?\]')", str(error.value))
    assert debug_with(*SPANS, *shlex.split(word)).data.tokenizer.special_tokens == sentinel_names(4)


def test_pairs_are_missed_where_data_is_opened_so_that_their_preset_can_be_shown():
    config = run_preset("pairs-quick")
    assert config.data.path == "builtin:shakespeare"
    with pytest.raises(
        DataError, match=r"builtin:shakespeare: .*data\.objective\.kind 'paired' .*data\.path"
    ):
        open_data(config)


def test_a_sample_is_no_longer_than_what_the_quick_preset_learns_to_write():
    config = run_preset("encdec-quick")
    objective = build_objective(config, config.data.tokenizer.build())
    assert config.train.sample_tokens == objective.decoder_len


def test_a_run_needs_only_to_say_how_long():
    config = from_tree(RunConfig, {"train": {"steps": 1}})
    assert config.data.path == "builtin:shakespeare"
    with pytest.raises(ConfigError, match=r"^train: a value is needed"):
        from_tree(RunConfig, {})
