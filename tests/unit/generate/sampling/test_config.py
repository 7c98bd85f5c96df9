"""SamplingConfig: its ranges, what it refuses, and which steps it asks for."""

import math
import tomllib

import pytest
import torch

from pellucid.config import Config, from_tree, to_toml, to_tree
from pellucid.errors import ConfigError
from pellucid.generate.sampling import SamplingConfig, Written

EVERYTHING = {
    "temperature": 0.7,
    "top_k": 7,
    "top_p": 0.9,
    "min_p": 0.01,
    "typical_p": 0.95,
    "top_n_sigma": 3.0,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.02,
    "repetition_penalty": 1.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.25,
    "no_repeat_ngram_size": 3,
    "logit_bias": {3: 1.5, 0: -2.0},
    "banned": [4, [1, 2]],
    "forced": [5, 6],
    "force_end": True,
    "min_new_tokens": 2,
    "max_new_tokens": 9,
    "stop": ["\n\n"],
    "seed": 5,
}


class Run(Config):
    sampling: SamplingConfig = SamplingConfig()


def message_for(**settings) -> str:
    with pytest.raises(ConfigError) as raised:
        from_tree(Run, {"sampling": settings})
    return str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", math.nan, "finite number"),
        ("temperature", math.inf, "finite number"),
        ("top_k", 0, "at least 1"),
        ("top_k", 2.5, "a whole number"),
        ("top_p", 0.0, "more than 0 and at most 1"),
        ("top_p", -0.5, "more than 0 and at most 1"),
        ("top_p", 1.01, "more than 0 and at most 1"),
        ("top_p", math.nan, "finite number"),
        ("min_p", -0.1, "at least 0 and at most 1"),
        ("min_p", 1.5, "at least 0 and at most 1"),
        ("typical_p", 0.0, "more than 0 and at most 1"),
        ("top_n_sigma", 0.0, "more than 0"),
        ("epsilon_cutoff", 1.0, "at least 0 and less than 1"),
        ("eta_cutoff", -0.1, "at least 0 and less than 1"),
        ("repetition_penalty", 0.0, "more than 0"),
        ("repetition_penalty", -1.0, "more than 0"),
        ("frequency_penalty", math.inf, "finite number"),
        ("no_repeat_ngram_size", 0, "at least 1"),
        ("min_new_tokens", -1, "at least 0"),
        ("max_new_tokens", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("stop", "END", "a list"),
        ("banned", "END", "a list"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(key, value, allowed):
    message = message_for(**{key: value})
    assert message.startswith(f"sampling.{key}: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 1e-30}, "temperature must be 0 (greedy) or at least 1e-6, not 1e-30"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens is 5 and max_new_tokens only 4"),
        ({"forced": [1, 2], "max_new_tokens": 1}, "max_new_tokens is 1, too few for 2 forced ids"),
        (
            {"forced": [1, 2], "force_end": True, "max_new_tokens": 2},
            "max_new_tokens is 2, too few for 2 forced ids and the forced end",
        ),
        ({"banned": [[]]}, "banned has a sequence of no ids"),
        ({"banned": [3, -4]}, "greater than or equal to 0, not -4"),
        ({"forced": [-1]}, "greater than or equal to 0, not -1"),
        ({"logit_bias": {-1: 2.0}}, "greater than or equal to 0"),
        ({"logit_bias": {1: math.inf}}, "finite number"),
        ({"stop": [""]}, "at least 1 character"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    assert message in message_for(**settings)


def test_the_ends_of_every_range_are_allowed():
    config = SamplingConfig(
        temperature=0, top_k=1, top_p=1, min_p=1, max_new_tokens=1, min_new_tokens=1, forced=(0,), seed=0
    )
    assert from_tree(SamplingConfig, to_tree(config)) == config


def test_every_setting_survives_toml():
    config = from_tree(SamplingConfig, EVERYTHING)
    assert from_tree(SamplingConfig, tomllib.loads(to_toml(config))) == config
    assert config.banned == ((4,), (1, 2))
    assert set(EVERYTHING) == set(SamplingConfig.model_fields), "a setting is not tried"


def test_every_setting_has_a_description():
    assert all(field.description for field in SamplingConfig.model_fields.values())


def test_default_settings_change_no_logit():
    assert SamplingConfig().steps() == []
    assert SamplingConfig().steps(end_id=3) == []


@pytest.mark.parametrize("setting", sorted(set(EVERYTHING) - {"max_new_tokens", "stop", "seed"}))
def test_each_setting_about_choice_is_one_step(setting):
    """A setting that no step reads would be silently without effect."""
    config = from_tree(SamplingConfig, {setting: EVERYTHING[setting]})
    steps = config.steps(end_id=7)
    assert len(steps) == (2 if setting == "banned" else 1)  # a table for each length of sequence
    logits = torch.linspace(3, -3, 12)[None]
    num_new = {"force_end": 255, "forced": 0, "min_new_tokens": 0}.get(setting, 5)
    written = Written(torch.tensor([[1, 2, 3, 1, 2]]), None, torch.tensor([num_new]))
    after = logits
    for step in steps:
        after = step(after, written)
    assert not torch.equal(after, logits)


def test_steps_leave_their_input_as_it_was():
    config = from_tree(SamplingConfig, EVERYTHING)
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 2, 3, 1], [3, 3, 3, 3], [0, 1, 2, 3]])
    lengths, num_new = torch.tensor([4, 2, 3]), torch.tensor([1, 0, 8])
    kept = [each.clone() for each in (logits, ids, lengths, num_new)]
    for step in config.steps(vocab_size=18, end_id=7):
        step(logits, Written(ids, lengths, num_new))
    assert all(torch.equal(*pair) for pair in zip((logits, ids, lengths, num_new), kept, strict=True))


def test_greedy_takes_no_filter_and_every_edit():
    greedy = from_tree(SamplingConfig, EVERYTHING | {"temperature": 0})
    filters = (
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "top_n_sigma",
        "epsilon_cutoff",
        "eta_cutoff",
    )
    edits = from_tree(SamplingConfig, {k: v for k, v in EVERYTHING.items() if k not in filters})
    assert len(greedy.steps(end_id=7)) == len(edits.steps(end_id=7)) == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"banned": [[3, 10], [12]]}, "banned: there is no id 10, 12; the vocabulary has 10 ids, 0 to 9"),
        ({"logit_bias": {10: 1.0}}, "logit_bias: there is no id 10"),
        ({"forced": [9, 11, 11]}, "forced: there is no id 11;"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(settings, message):
    config = from_tree(SamplingConfig, settings)
    with pytest.raises(ConfigError) as raised:
        config.check(10)
    assert message in str(raised.value)
    with pytest.raises(ConfigError):
        config.steps(vocab_size=10)
    config.check(13)


def test_an_end_that_the_tokenizer_has_not_cannot_be_forced():
    with pytest.raises(ConfigError, match="force_end: the tokenizer has no end-of-text token"):
        SamplingConfig(force_end=True).steps()
