"""What sampling promises for any logits and settings."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generate.sampling import Chooser, SamplingConfig, Written
from pellucid.generate.sampling.choosing import invert
from pellucid.generate.sampling.filters import keep_min_p, keep_top_p, keep_typical
from pellucid.generate.sampling.penalties import forbid_repeated_ngrams, penalise_repetition
from pellucid.model.decoding import keep_top_k

ROUNDING = 1e-6  # float32 sums of at most 60 probabilities

logit_rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60).map(
    lambda row: torch.tensor([row])
)
shares = st.floats(0, 1, exclude_min=True)
chances = st.floats(0, 1)


def written(ids, num_new=0):
    return Written(torch.tensor([ids], dtype=torch.int64), None, torch.tensor([num_new]))


# Filters ----------------------------------------------------------------------------------------------


@given(logit_rows, shares)
def test_top_p_keeps_at_least_p(logits, top_p):
    kept = keep_top_p(logits, top_p).isfinite()
    assert logits.double().softmax(dim=-1)[kept].sum() >= top_p - ROUNDING


@given(logit_rows, shares)
def test_nothing_that_top_p_keeps_could_go(logits, top_p):
    """Without the ids that are as likely as the least likely one kept, what is kept has less than p."""
    kept = logits[keep_top_p(logits, top_p).isfinite()]
    likelier = logits.double().softmax(dim=-1)[logits > kept.min()]
    assert len(kept) >= 1
    assert likelier.sum() < top_p + ROUNDING


@given(logit_rows, shares)
def test_top_p_keeps_the_likeliest_ids_unchanged(logits, top_p):
    after = keep_top_p(logits, top_p)
    kept = after.isfinite()
    assert torch.equal(after[kept], logits[kept])
    assert kept.all() or logits[kept].min() > logits[~kept].max()


@given(logit_rows, shares)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(logits, min_p):
    kept = keep_min_p(logits, min_p).isfinite()
    p = logits.double().softmax(dim=-1)
    least = min_p * p.max()
    assert kept[p == p.max()].all()
    assert (p[kept] >= least * (1 - 1e-5)).all()
    assert (p[~kept] <= least * (1 + 1e-5)).all()


@given(logit_rows, shares)
def test_typical_keeps_the_mass_and_the_nearest_to_the_entropy(logits, typical_p):
    kept = keep_typical(logits, typical_p).isfinite()
    p = logits.double().softmax(dim=-1)
    distance = (-p.log() + (p * p.log()).sum()).abs()
    assert p[kept].sum() >= typical_p - ROUNDING
    assert kept.all() or distance[kept].max() <= distance[~kept].min() + 1e-4


@given(logit_rows, st.integers(1, 70))
def test_top_k_keeps_k_and_ties(logits, top_k):
    kept = keep_top_k(logits, top_k).isfinite()
    assert kept.sum() >= min(top_k, logits.shape[1])
    assert (logits > logits[kept].min()).sum() < top_k


# Penalties --------------------------------------------------------------------------------------------


@given(logit_rows, st.floats(1, 10), st.data())
def test_repetition_penalty_makes_no_seen_id_likelier_and_touches_no_other(logits, penalty, data):
    ids = data.draw(st.lists(st.integers(0, logits.shape[1] - 1), max_size=8))
    after = penalise_repetition(logits, written(ids), penalty)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, ids] = True
    assert (after[seen] <= logits[seen]).all()
    assert torch.equal(after[~seen], logits[~seen])


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_what_may_follow_repeats_no_ngram_and_what_may_not_does(ids, size):
    may = forbid_repeated_ngrams(torch.zeros(1, 4), written(ids), size)[0].isfinite().tolist()
    before = [ids[i : i + size] for i in range(len(ids) - size + 1)]
    for new in range(4):
        repeats = len(ids) >= size - 1 and [*ids, new][-size:] in before
        assert may[new] == (not repeats)


# Choosing ---------------------------------------------------------------------------------------------

configs = st.builds(
    SamplingConfig,
    temperature=st.just(0.0) | st.floats(0.05, 5),
    top_k=st.none() | st.integers(1, 70),
    top_p=shares,
    min_p=chances,
    typical_p=shares,
    top_n_sigma=st.none() | st.floats(0.1, 5),
    epsilon_cutoff=st.floats(0, 1, exclude_max=True),
    eta_cutoff=st.floats(0, 1, exclude_max=True),
    repetition_penalty=st.floats(0.1, 10),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    seed=st.integers(0, 2**40),
)


@given(logit_rows, configs, st.integers(1, 70), st.integers(0, 10**6))
def test_any_settings_choose_an_id_that_they_allow_and_the_tokenizer_has(logits, config, vocab_size, place):
    so_far = Written(torch.zeros((1, 3), dtype=torch.int64), None, torch.tensor([place]))
    chooser = Chooser(config, [config.seed], vocab_size=vocab_size)
    chosen, p = chooser.choose(logits, so_far), chooser.probabilities(logits, so_far)
    assert chosen.shape == (1,)
    assert 0 <= int(chosen) < min(vocab_size, logits.shape[1])
    assert p[0, chosen] > 0
    assert abs(p.sum() - 1) < ROUNDING


@given(logit_rows, configs)
def test_steps_change_nothing_but_what_they_return(logits, config):
    so_far, before = written([0, 0], 1), logits.clone()
    for step in config.steps():
        step(logits, so_far)
    assert torch.equal(logits, before)


weights = st.lists(st.just(0.0) | st.floats(1e-300, 1), min_size=1, max_size=40).filter(any)


@given(weights, st.just(1 - 2.0**-53) | st.floats(0, 1, exclude_max=True))
def test_a_drawn_place_has_weight_and_holds_the_number(weights, u):
    cumulative = torch.tensor([weights], dtype=torch.float64).cumsum(dim=-1)
    place = int(invert(cumulative, torch.tensor([u], dtype=torch.float64)))
    target = u * cumulative[0, -1]
    assert weights[place] > 0
    assert cumulative[0, place] > target or place == len(weights) - 1
    assert place == 0 or cumulative[0, place - 1] <= target
