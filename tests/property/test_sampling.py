"""Top-p keeps at least p of the mass, in the smallest set that does."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generate.sampling import SamplingConfig, keep_top_p, penalise_repetition

ROUNDING = 1e-6  # float32 sums of at most 60 probabilities

logit_rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60).map(
    lambda row: torch.tensor([row])
)
shares = st.floats(0, 1, exclude_min=True)


@given(logit_rows, shares)
def test_top_p_keeps_at_least_p(logits, top_p):
    kept = keep_top_p(logits, top_p).isfinite()
    assert logits.double().softmax(dim=-1)[kept].sum() >= top_p - ROUNDING


@given(logit_rows, shares)
def test_no_smaller_set_has_p(logits, top_p):
    """The likeliest n - 1 ids have the most mass of any n - 1 ids, and it is less than p."""
    kept = int(keep_top_p(logits, top_p).isfinite().sum())
    likeliest = logits.double().softmax(dim=-1)[0].sort(descending=True).values
    assert kept >= 1
    assert kept == 1 or likeliest[: kept - 1].sum() <= top_p + ROUNDING


@given(logit_rows, shares)
def test_top_p_keeps_the_likeliest_ids_unchanged(logits, top_p):
    after = keep_top_p(logits, top_p)
    kept = after.isfinite()
    assert torch.equal(after[kept], logits[kept])
    assert kept.all() or logits[kept].min() >= logits[~kept].max()


@given(logit_rows, st.floats(1, 10), st.data())
def test_repetition_penalty_makes_no_seen_id_likelier_and_touches_no_other(logits, penalty, data):
    ids = data.draw(st.lists(st.integers(0, logits.shape[1] - 1), max_size=8))
    after = penalise_repetition(logits, torch.tensor([ids], dtype=torch.int64), penalty)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, ids] = True
    assert (after[seen] <= logits[seen]).all()
    assert torch.equal(after[~seen], logits[~seen])


@given(
    logit_rows,
    st.floats(0, 5).filter(lambda t: t == 0 or t > 1e-3),
    st.none() | st.integers(1, 70),
    shares,
    st.integers(1, 70),
    st.integers(0, 2**40),
)
def test_any_settings_choose_an_id_that_the_tokenizer_has(
    logits, temperature, top_k, top_p, vocab_size, seed
):
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    chosen = config.build(logits.device, vocab_size=vocab_size)(logits, torch.tensor([[0]]))
    assert chosen.shape == (1,)
    assert 0 <= int(chosen) < min(vocab_size, logits.shape[1])
