"""Chooser: what it draws from, that draws are a row's own, and how often each id comes."""

import math

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.sampling import PRESETS, Chooser, SamplingConfig, Written
from pellucid.generate.sampling.choosing import invert, likeliest

INF = float("inf")


def nothing(rows=1, num_new=0):
    return Written(torch.zeros((rows, 1), dtype=torch.int64), None, torch.full((rows,), num_new))


def draw_logits(rows, vocab_size, seed=0, scale=3.0):
    return scale * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def by_steps(config, logits, written, **names):
    logits = logits.float()
    for step in config.steps(**names):
        logits = step(logits, written)
    return logits


# What it draws from -----------------------------------------------------------------------------------

CONFIGS = [
    *PRESETS.values(),
    SamplingConfig(top_k=5, typical_p=0.7),
    SamplingConfig(top_n_sigma=1.0, top_k=20, min_p=0.05),
    SamplingConfig(temperature=1.4, top_k=1000, top_p=0.7, eta_cutoff=1e-3),
    SamplingConfig(top_k=3, banned=((0,), (4, 1)), logit_bias={2: 3.0}, frequency_penalty=0.4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.model_dump(exclude_defaults=True)))
@pytest.mark.parametrize("grain", [None, 0.25], ids=["no ties", "ties"])
def test_probabilities_are_the_softmax_of_all_steps(config, grain):
    logits = draw_logits(6, 90)
    if grain is not None:
        logits = (logits / grain).round() * grain  # as in bf16, where many logits are equal
    written = Written(
        torch.randint(90, (6, 8), generator=torch.Generator().manual_seed(1)), None, torch.tensor([4] * 6)
    )
    names = {"vocab_size": 80, "end_id": 7}
    p = Chooser(config, range(6), **names).probabilities(logits, written)
    after = by_steps(config, logits, written, **names)
    if config.temperature == 0:
        assert torch.equal(p, torch.nn.functional.one_hot(after.argmax(dim=-1), 90).float())
    else:
        assert torch.equal(p > 0, after.isfinite())
        torch.testing.assert_close(p, after.softmax(dim=-1), rtol=1e-5, atol=1e-7)
    assert p.shape == logits.shape


def test_likeliest_keeps_every_tie_of_the_last():
    logits = torch.tensor([[1.0, 3.0, 1.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    kept, ids = likeliest(logits, 3)
    assert ids is not None
    assert ids[0].tolist() == [0, 1, 2, 3, 4]
    assert kept[0].tolist() == [1.0, 3.0, 1.0, 2.0, 1.0]
    assert sorted(ids[1][kept[1].isfinite()].tolist()) == [0, 1, 2]


def test_greedy_takes_the_largest_logit_whatever_the_seed_and_the_filters():
    logits = draw_logits(64, 50)
    for seed in (0, 1):
        chooser = Chooser(SamplingConfig(temperature=0, top_k=3, top_p=0.1), [seed] * 64)
        assert torch.equal(chooser.choose(logits, nothing(64)), logits.argmax(dim=-1))


def test_greedy_heeds_the_repetition_penalty():
    chooser = Chooser(SamplingConfig(temperature=0, repetition_penalty=2.0), [0, 0])
    written = Written(torch.tensor([[1], [0]]), None, torch.tensor([0, 0]))
    assert chooser.choose(torch.tensor([[3.0, 2.0], [3.0, 2.0]]), written).tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_beyond_the_tokenizer_are_never_chosen(temperature):
    logits = torch.zeros(500, 8)
    logits[:, 5:] = 20.0  # the padding of the model's vocabulary is far likelier than all the rest
    chooser = Chooser(SamplingConfig(temperature=temperature), range(500), vocab_size=5)
    assert chooser.choose(logits, nothing(500)).max() < 5
    assert torch.equal(chooser.probabilities(logits, nothing(500))[:, 5:], torch.zeros(500, 3))


def test_top_k_counts_only_the_tokenizers_own_ids():
    logits = torch.tensor([[1.0, 3.0, 2.0, 9.0, 9.0]])
    p = Chooser(SamplingConfig(top_k=2), [0], vocab_size=3).probabilities(logits, nothing())
    assert (p > 0).tolist() == [[False, True, True, False, False]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats_are_read_as_float32(dtype):
    logits = draw_logits(4, 60).to(dtype)
    chooser = Chooser(PRESETS["precise"], range(4))
    expected = Chooser(PRESETS["precise"], range(4)).choose(logits.float(), nothing(4))
    assert torch.equal(chooser.choose(logits, nothing(4)), expected)


# Draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_chooses_alike_alone_and_in_any_batch(name):
    """At a real vocabulary's size, over places 0 to 4, padded or not."""
    logits = draw_logits(5, 50_304, seed=8)
    ids = torch.randint(50_304, (5, 9), generator=torch.Generator().manual_seed(9))
    lengths, num_new, seeds = torch.tensor([9, 5, 7, 9, 6]), torch.arange(5), [3, 1, 4, 1, 5]
    chooser = Chooser(PRESETS[name], seeds, vocab_size=50_257)
    together = chooser.choose(logits, Written(ids, lengths, num_new))
    for i, length in enumerate(lengths.tolist()):
        alone = Chooser(PRESETS[name], [seeds[i]], vocab_size=50_257)
        written = Written(ids[i : i + 1, 9 - length :], None, num_new[i : i + 1])
        assert alone.choose(logits[i : i + 1], written).item() == together[i]


def test_rows_go_on_with_their_seeds_after_keep():
    logits = torch.zeros(3, 1000)
    chooser = Chooser(SamplingConfig(), [10, 11, 12])
    before = chooser.choose(logits, nothing(3, num_new=6))
    chooser.keep(torch.tensor([2, 0]))
    assert chooser.choose(logits[:2], nothing(2, num_new=6)).tolist() == [before[2], before[0]]
    chooser.keep([1])
    assert chooser.choose(logits[:1], nothing(1, num_new=6)).tolist() == [before[0]]


def test_draws_depend_on_the_seed_and_the_place_alone():
    logits = torch.zeros(50, 1000)
    first, again, other = (Chooser(SamplingConfig(), range(start, start + 50)) for start in (0, 0, 50))
    at_0, at_1 = (first.choose(logits, nothing(50, place)) for place in (0, 1))
    assert torch.equal(again.choose(logits, nothing(50, 1)), at_1), "no draw before it is needed"
    assert (at_0 == at_1).float().mean() < 0.1
    assert (other.choose(logits, nothing(50, 0)) == at_0).float().mean() < 0.1


def test_there_must_be_a_seed_for_each_row():
    with pytest.raises(ValueError, match="there are 2 seeds and 3 rows of logits"):
        Chooser(SamplingConfig(), [0, 1]).choose(torch.zeros(3, 5), nothing(3))


@pytest.mark.parametrize("largest", [1 - 2.0**-53, 0.5, 0.0])
@pytest.mark.parametrize("total", [1.0, 1 + 2.0**-52, 1.5, 2 - 2.0**-52, 0.75, 1 - 2.0**-53, 1e-300])
def test_no_number_draws_a_place_without_weight(largest, total):
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0]], dtype=torch.float64) * total
    place = invert(weights.cumsum(dim=-1), torch.tensor([largest], dtype=torch.float64))
    assert place.tolist() == [1 if largest == 0 else 4]


# Frequencies ------------------------------------------------------------------------------------------

DRAWS = 40_000
LOGITS, IDS = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, 1.2, 0.3, -3.0], [0, 4, 6, 0]


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


def counts_of(config, *, seeds, places):
    """How often each id comes over all (seed, place)."""
    rows = len(seeds) * len(places)
    written = Written(
        torch.tensor(IDS).expand(rows, -1), None, torch.tensor(places).repeat_interleave(len(seeds))
    )
    chooser = Chooser(config, [*seeds] * len(places))
    chosen = chooser.choose(torch.tensor(LOGITS).expand(rows, -1), written)
    return np.bincount(chosen.numpy(), minlength=len(LOGITS))


WAYS = [
    pytest.param({"seeds": range(DRAWS), "places": [0]}, id="many seeds"),
    pytest.param({"seeds": [3], "places": [*range(DRAWS)]}, id="many places of one seed"),
    pytest.param({"seeds": range(200), "places": [*range(200)]}, id="both"),
]


@pytest.mark.parametrize("way", WAYS)
def test_frequencies_are_those_of_the_settings(way):
    settings = {"temperature": 0.8, "top_k": 7, "top_p": 0.9}
    expected = reference(LOGITS, IDS, penalty=1.3, **settings)
    assert 2 < (expected > 0).sum() < 7  # top-p cuts something that top-k has left
    config = SamplingConfig(repetition_penalty=1.3, **settings)
    assert chi_square_excess(counts_of(config, **way), DRAWS * expected) < 0


@pytest.mark.parametrize("way", WAYS)
def test_frequencies_of_plain_drawing_are_the_softmax(way):
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert chi_square_excess(counts_of(SamplingConfig(), **way), DRAWS * expected) < 0


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "greedy"])
def test_frequencies_of_presets_are_their_probabilities(name):
    written = Written(torch.tensor([IDS]), None, torch.tensor([0]))
    p = Chooser(PRESETS[name], [0]).probabilities(torch.tensor([LOGITS]), written)[0].double().numpy()
    assert (p > 0).sum() > 1
    assert (
        chi_square_excess(counts_of(PRESETS[name], seeds=range(DRAWS), places=[5]), DRAWS * p / p.sum()) < 0
    )


def test_the_frequency_test_notices_a_slightly_wrong_temperature():
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    counts = counts_of(SamplingConfig(temperature=0.95), seeds=range(DRAWS), places=[0])
    assert chi_square_excess(counts, DRAWS * expected) > 0


# Nothing to choose from -------------------------------------------------------------------------------

TEMPERATURES = pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {}, {"top_k": 2}, {"top_p": 0.5, "top_k": 2}]
)


@TEMPERATURES
@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_logits_that_are_no_numbers_are_refused(settings, bad):
    logits = torch.zeros(3, 5)
    logits[1, 2] = bad
    chooser = Chooser(SamplingConfig(**settings), range(3))
    for ask in (chooser.choose, chooser.probabilities):
        with pytest.raises(GenerationError, match=r"the model's logits are NaN or infinite \(row 1\).*fp32"):
            ask(logits, nothing(3))


def test_what_is_beyond_the_tokenizer_may_be_no_number():
    logits = torch.tensor([[0.0, 5.0, float("nan")]])
    assert Chooser(SamplingConfig(temperature=0), [0], vocab_size=2).choose(logits, nothing()).tolist() == [1]


@TEMPERATURES
def test_all_ids_banned_names_the_settings(settings):
    config = SamplingConfig(
        banned=((0,), (1,), (2,)),
        no_repeat_ngram_size=1,
        min_new_tokens=1,
        repetition_penalty=1.1,
        **settings,
    )
    written = Written(torch.tensor([[3, 0]]), None, torch.tensor([0]))
    chooser = Chooser(config, [0], end_id=4)
    for ask in (chooser.choose, chooser.probabilities):
        with pytest.raises(ConfigError) as raised:
            ask(torch.zeros(1, 5), written)
        assert str(raised.value) == (
            "the settings leave no id to choose; loosen repetition_penalty or no_repeat_ngram_size or banned or "
            "min_new_tokens"
        )


def test_a_forced_id_may_be_banned_otherwise():
    config = SamplingConfig(banned=((0,), (1,)), forced=(1,), temperature=0)
    assert Chooser(config, [0]).choose(torch.zeros(1, 2), nothing()).tolist() == [1]


def test_ids_outside_the_vocabulary_are_refused_at_once():
    with pytest.raises(ConfigError, match="forced: there is no id 5; the vocabulary has 5 ids"):
        Chooser(SamplingConfig(forced=(5,)), [0], vocab_size=5)
