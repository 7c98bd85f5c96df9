"""SamplingConfig: its ranges, its presets, and the pick that it builds."""

import math

import numpy as np
import pytest
import torch

from pellucid.config import Config, from_tree, to_tree
from pellucid.errors import ConfigError
from pellucid.generate.sampling import (
    PRESETS,
    SamplingConfig,
    keep_top_p,
    penalise_repetition,
    pick_after,
    preset,
)

CPU = torch.device("cpu")
NO_IDS = torch.zeros((1, 0), dtype=torch.int64)


class Run(Config):
    sampling: SamplingConfig = SamplingConfig()


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
        ("repetition_penalty", 0.0, "more than 0"),
        ("repetition_penalty", -1.0, "more than 0"),
        ("max_new_tokens", 0, "at least 1"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(key, value, allowed):
    with pytest.raises(ConfigError) as raised:
        from_tree(Run, {"sampling": {key: value}})
    message = str(raised.value)
    assert message.startswith(f"sampling.{key}: ")
    assert allowed in message


def test_a_misspelt_setting_gets_the_nearest_key():
    with pytest.raises(ConfigError, match=r"sampling\.temprature.*did you mean 'temperature'"):
        from_tree(Run, {"sampling": {"temprature": 1.0}})


def test_the_ends_of_every_range_are_allowed():
    config = SamplingConfig(temperature=0, top_k=1, top_p=1, max_new_tokens=1, seed=0)
    assert from_tree(SamplingConfig, to_tree(config)) == config


def test_every_setting_has_a_description():
    assert all(field.description for field in SamplingConfig.model_fields.values())


@pytest.mark.parametrize("name", ["greedy", "precise", "balanced", "creative"])
def test_presets_are_found_by_name(name):
    assert preset(name) is PRESETS[name]


def test_presets_go_from_predictable_to_varied():
    logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))
    entropies = []
    for name in ("precise", "balanced", "creative"):
        p = probabilities(preset(name), logits)
        entropies.append(-(p[p > 0] * p[p > 0].log()).sum().item())
    assert preset("greedy").temperature == 0
    assert 0 < entropies[0] < entropies[1] < entropies[2]


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no sampling preset 'blanced'; did you mean 'balanced'\?.*greedy"):
        preset("blanced")


def probabilities(config, logits, ids=NO_IDS, vocab_size=None):
    logits = logits.float()
    for step in config.steps(vocab_size):
        logits = step(logits, ids)
    return logits.softmax(dim=-1)[0]


def test_default_settings_change_no_logit():
    assert SamplingConfig().steps() == []


def test_steps_leave_their_input_as_it_was():
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(1))
    before, ids = logits.clone(), torch.tensor([[1, 2], [3, 3]])
    config = SamplingConfig(temperature=0.5, top_k=5, top_p=0.5, repetition_penalty=1.5)
    for step in config.steps(vocab_size=18):
        step(logits, ids)
    assert torch.equal(logits, before)


def test_repetition_penalty_lowers_positive_and_negative_logits_once():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.0]])
    penalised = penalise_repetition(logits, torch.tensor([[0, 1, 0, 3]]), 2.0)
    assert penalised.tolist() == [[1.0, -4.0, 1.0, 0.0]]


def test_repetition_penalty_of_one_row_leaves_the_other_row_alone():
    penalised = penalise_repetition(torch.ones(2, 3), torch.tensor([[0], [2]]), 4.0)
    assert penalised.tolist() == [[0.25, 1.0, 1.0], [1.0, 1.0, 0.25]]


def test_top_p_keeps_the_likeliest_id_however_small_p_is():
    kept = keep_top_p(torch.tensor([[0.1, 0.3, 0.2]]), 1e-9)
    assert kept.isfinite().tolist() == [[False, True, False]]


def test_greedy_takes_the_largest_logit_whatever_the_seed_and_the_filters():
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(2))
    ids = torch.zeros((64, 1), dtype=torch.int64)
    for seed in (0, 1):
        pick = SamplingConfig(temperature=0, top_k=3, top_p=0.1, seed=seed).build(CPU)
        assert torch.equal(pick(logits, ids), logits.argmax(dim=-1))


def test_greedy_heeds_the_repetition_penalty():
    pick = SamplingConfig(temperature=0, repetition_penalty=2.0).build(CPU)
    logits = torch.tensor([[3.0, 2.0]])
    assert pick(logits, torch.tensor([[1]])).tolist() == [0]
    assert pick(logits, torch.tensor([[0]])).tolist() == [1]


def test_draws_depend_on_the_seed_alone():
    logits, ids = torch.zeros(100, 50), torch.zeros((100, 1), dtype=torch.int64)
    first, again, other = (SamplingConfig(seed=seed).build(CPU) for seed in (7, 7, 8))
    draws = [first(logits, ids), first(logits, ids)]
    assert torch.equal(torch.stack(draws), torch.stack([again(logits, ids), again(logits, ids)]))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], other(logits, ids))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_beyond_the_tokenizer_are_never_chosen(temperature):
    logits = torch.zeros(500, 8)
    logits[:, 5:] = 20.0  # the padding of the model's vocabulary is far likelier than all the rest
    pick = SamplingConfig(temperature=temperature).build(CPU, vocab_size=5)
    assert pick(logits, torch.zeros((500, 1), dtype=torch.int64)).max() < 5


def test_top_k_counts_only_the_tokenizers_own_ids():
    logits = torch.tensor([[1.0, 3.0, 2.0, 9.0, 9.0]])
    kept = probabilities(SamplingConfig(top_k=2), logits, vocab_size=3)
    assert (kept > 0).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_steps_are_given_float32(dtype):
    seen = []

    def look(logits, ids):
        seen.append(logits.dtype)
        return logits

    pick_after([look], None)(torch.randn(1, 5).to(dtype), NO_IDS)
    assert seen == [torch.float32]


# Frequencies ----------------------------------------------------------------------------------------


def chi_square_excess(counts, expected):
    """Pearson's statistic minus a bound that a fair sample passes with probability ≥ 1 - 1e-6.

    For k degrees of freedom, P(X ≥ k + 2√(kx) + 2x) ≤ exp(-x).
    Source: Laurent & Massart 2000, Annals of Statistics 28(5), lemma 1.
    """
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert expected[possible].min() >= 5, "too few draws for the chi-square approximation"
    statistic = ((counts[possible] - expected[possible]) ** 2 / expected[possible]).sum()
    k, x = possible.sum() - 1, math.log(1e6)
    return statistic - (k + 2 * math.sqrt(k * x) + 2 * x)


def reference(logits, ids, *, temperature, top_k, top_p, penalty):
    """The distribution of these settings, in float64 numpy, one id at a time."""
    logits = np.array(logits, dtype=np.float64)
    for i in set(ids):
        logits[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
    weights = np.exp(logits / temperature)
    kept = np.argsort(-weights)[:top_k]
    p = np.zeros_like(weights)
    p[kept] = weights[kept] / weights[kept].sum()
    nucleus, mass = [], 0.0
    for i in kept:
        nucleus.append(i)
        mass += p[i]
        if mass >= top_p:
            break
    final = np.zeros_like(p)
    final[nucleus] = p[nucleus] / mass
    return final


DRAWS = 40_000


def counts_of(config, logits, ids):
    rows, history = torch.tensor(logits).expand(DRAWS, -1), torch.tensor(ids).expand(DRAWS, -1)
    return np.bincount(config.build(CPU)(rows, history).numpy(), minlength=len(logits))


LOGITS, IDS = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, 1.2, 0.3, -3.0], [0, 4, 6, 0]
SETTINGS = {"temperature": 0.8, "top_k": 7, "top_p": 0.9, "penalty": 1.3}


def test_frequencies_are_those_of_the_settings():
    expected = reference(LOGITS, IDS, **SETTINGS)
    assert 2 < (expected > 0).sum() < 7  # top-p cuts something that top-k has left
    config = SamplingConfig(temperature=0.8, top_k=7, top_p=0.9, repetition_penalty=1.3, seed=1)
    assert chi_square_excess(counts_of(config, LOGITS, IDS), DRAWS * expected) < 0


def test_frequencies_of_plain_drawing_are_the_softmax():
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert chi_square_excess(counts_of(SamplingConfig(seed=2), LOGITS, IDS), DRAWS * expected) < 0


def test_the_frequency_test_notices_a_slightly_wrong_temperature():
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    counts = counts_of(SamplingConfig(temperature=0.95, seed=2), LOGITS, IDS)
    assert chi_square_excess(counts, DRAWS * expected) > 0
