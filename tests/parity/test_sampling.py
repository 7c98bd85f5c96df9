"""Every sampling step, and whole SamplingConfigs, equal the logits processors of transformers."""

import pytest
import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ForcedEOSTokenLogitsProcessor,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from pellucid.generate.sampling import Chooser, SamplingConfig, Written

B, T, V = 16, 12, 300
NEW = 5  # of the T ids
END = 6

CASES = [
    ({"repetition_penalty": 1.3}, RepetitionPenaltyLogitsProcessor(1.3)),
    ({"repetition_penalty": 0.7}, RepetitionPenaltyLogitsProcessor(0.7)),
    *(({"no_repeat_ngram_size": n}, NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3, 20)),
    (
        {"logit_bias": {4: 2.5, 0: -30.0, 299: 0.1}},
        SequenceBiasLogitsProcessor({(4,): 2.5, (0,): -30.0, (299,): 0.1}),
    ),
    ({"min_new_tokens": NEW}, MinNewTokensLengthLogitsProcessor(T - NEW, NEW, [END])),
    ({"min_new_tokens": NEW + 1}, MinNewTokensLengthLogitsProcessor(T - NEW, NEW + 1, [END])),
    (
        {"force_end": True, "max_new_tokens": NEW + 1},
        ForcedEOSTokenLogitsProcessor(T + 1, [END]),
    ),
    ({"force_end": True, "max_new_tokens": NEW + 2}, ForcedEOSTokenLogitsProcessor(T + 2, [END])),
    *(({"temperature": t}, TemperatureLogitsWarper(t)) for t in (0.01, 0.7, 1.9)),
    *(({"top_k": k}, TopKLogitsWarper(k)) for k in (1, 2, 40, V, 1000)),
    *(({"top_p": p}, TopPLogitsWarper(p)) for p in (0.01, 0.5, 0.95, 0.999)),
    *(({"min_p": p}, MinPLogitsWarper(p)) for p in (0.001, 0.05, 0.5, 1.0)),
    *(({"typical_p": p}, TypicalLogitsWarper(p)) for p in (0.01, 0.2, 0.9, 0.999)),
    *(({"epsilon_cutoff": p}, EpsilonLogitsWarper(p)) for p in (1e-4, 0.01, 0.9)),
    *(({"eta_cutoff": p}, EtaLogitsWarper(p)) for p in (1e-4, 0.01, 0.9)),
]


def draw(seed):
    """Logits with no two alike in a row, and ids among which some repeat."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(B, V, generator=generator), torch.randint(8, (B, T), generator=generator)


def after(steps, logits, ids):
    written = Written(ids, None, torch.full((B,), NEW))
    for step in steps:
        logits = step(logits, written)
    return logits


@pytest.mark.parametrize(("settings", "processor"), CASES, ids=[str(settings) for settings, _ in CASES])
@pytest.mark.parametrize("seed", range(3))
def test_each_step_equals_transformers(settings, processor, seed):
    """Theirs in float64: in float32 its sums put one id of these on the wrong side of typical_p=0.999."""
    logits, ids = draw(seed)
    steps = SamplingConfig(**settings).steps(end_id=END)
    assert len(steps) == 1
    theirs = processor(ids, logits.double()).float()
    torch.testing.assert_close(after(steps, logits, ids), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_banned_sequences_equal_bad_words(seed):
    logits, ids = draw(seed)
    ends = [row.tolist() for row in ids[:, -4:]]
    banned = [[5], [299], *([*end[-n:], 100 + n] for end in ends[:8] for n in (1, 2, 3, 4))]
    ours = after(SamplingConfig(banned=banned).steps(end_id=END), logits, ids)
    theirs = NoBadWordsLogitsProcessor(banned, END)(ids, logits)
    assert theirs.isneginf().sum() > 2 * B
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_end_of_text_can_be_banned_here_and_not_there():
    logits, ids = draw(0)
    theirs = NoBadWordsLogitsProcessor([[END], [5]], END)(ids, logits)
    ours = after(SamplingConfig(banned=[END, 5]).steps(end_id=END), logits, ids)
    assert theirs[:, END].isfinite().all()
    assert ours[:, END].isneginf().all()
    assert torch.equal(ours[:, 5], theirs[:, 5])


def test_padding_is_ignored_as_in_a_repetition_penalty_with_a_mask():
    logits, ids = draw(4)
    padding = torch.arange(B) % T
    theirs = RepetitionPenaltyLogitsProcessor(1.4, prompt_ignore_length=padding)(ids, logits)
    written = Written(ids, T - padding, torch.zeros(B, dtype=torch.int64))
    (step,) = SamplingConfig(repetition_penalty=1.4).steps()
    torch.testing.assert_close(step(logits, written), theirs, rtol=0, atol=0)


# Whole configs, as generate() would apply them --------------------------------------------------------

WARPERS = {
    "temperature": 0.8,
    "top_k": 50,
    "top_p": 0.9,
    "min_p": 0.02,
    "typical_p": 0.9,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.02,
}
PROCESSORS = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "min_new_tokens": NEW + 2}
BANNED = [[5], [2, 7], [299]]
BIAS = {4: 2.5, 17: -3.0}
WHOLE = [
    {},
    PROCESSORS,
    WARPERS,
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"temperature": 1.3, "min_p": 0.08},
    {"temperature": 0.6, "typical_p": 0.5, "top_p": 0.8},
    {**PROCESSORS, "banned": BANNED, "logit_bias": BIAS},
    {**PROCESSORS, **WARPERS, "banned": BANNED, "logit_bias": BIAS},
    {**PROCESSORS, **WARPERS, "banned": BANNED, "force_end": True, "max_new_tokens": NEW + 2},
    {**PROCESSORS, **WARPERS, "force_end": True, "max_new_tokens": NEW + 1, "min_new_tokens": NEW + 1},
    {**PROCESSORS, **WARPERS, "temperature": 0, "banned": BANNED},
]


@pytest.fixture(scope="module")
def their_model():
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=8, n_layer=1, n_head=1, n_positions=64)).eval()


def their_processors(model, settings, prompt_length, **theirs):
    """The list that `generate` builds for these settings, in its order. `theirs`: what only they have."""
    words = {"top_k": 0} | settings | theirs  # 0: their default is 50
    limit = prompt_length + words.pop("max_new_tokens", 256)
    words["do_sample"] = words.get("temperature") != 0
    words["forced_eos_token_id"] = END if words.pop("force_end", False) else None
    if bias := words.pop("logit_bias", None):
        words["sequence_bias"] = [[[id_], value] for id_, value in bias.items()]
    if banned := words.pop("banned", None):
        words["bad_words_ids"] = banned
    config = GenerationConfig(**words, eos_token_id=END, max_length=limit)
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
    return model._get_logits_processor(config, input_ids_seq_length=prompt_length, device="cpu")


@pytest.mark.parametrize("settings", WHOLE, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_whole_config_equals_the_list_that_generate_builds(their_model, settings, seed):
    """Equal to the bit, but for 1e-6: dividing before or after what is summed rounds otherwise."""
    logits, ids = draw(seed)
    config = SamplingConfig(**settings)
    theirs = their_processors(their_model, settings, T - NEW)(ids, logits)
    ours = after(config.steps(end_id=END), logits, ids)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)

    drawn_from = Chooser(config, [0] * B, end_id=END).probabilities(
        logits, Written(ids, None, torch.full((B,), NEW))
    )
    if config.temperature == 0:
        assert torch.equal(drawn_from.argmax(dim=-1), theirs.argmax(dim=-1))
        assert torch.equal(drawn_from.amax(dim=-1), torch.ones(B))
    else:
        torch.testing.assert_close(drawn_from, theirs.softmax(dim=-1), rtol=0, atol=1e-6)


def test_each_row_of_a_padded_batch_equals_the_row_alone_there(their_model):
    """Rows with prompts of unequal lengths, which their list is asked about one by one, without padding."""
    settings = {**PROCESSORS, **WARPERS, "banned": BANNED, "logit_bias": BIAS, "min_new_tokens": 3}
    logits, ids = draw(7)
    lengths, num_new = T - torch.arange(B) % 9, torch.arange(B) % 4
    ids = ids.where(torch.arange(T) >= T - lengths[:, None], 2)
    ours = logits
    for step in SamplingConfig(**settings).steps(end_id=END):
        ours = step(ours, Written(ids, lengths, num_new))
    for row in range(B):
        length, new = int(lengths[row]), int(num_new[row])
        processors = their_processors(their_model, settings, length - new)
        theirs = processors(ids[row : row + 1, T - length :], logits[row : row + 1])
        torch.testing.assert_close(ours[row : row + 1], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_new", [0, 1])
def test_forced_ids_equal_a_forced_beginning(their_model, num_new):
    """Theirs forces the id after a start of one id, as encoder-decoders have it."""
    logits, ids = draw(1)
    settings = {"temperature": 0.7, "min_p": 0.1, "repetition_penalty": 1.2}
    processors = their_processors(their_model, settings, 1, forced_bos_token_id=9)
    written = Written(ids[:, : 1 + num_new], None, torch.full((B,), num_new))
    ours = logits
    for step in SamplingConfig(**settings, forced=(9,)).steps():
        ours = step(ours, written)
    torch.testing.assert_close(ours, processors(written.ids, logits), rtol=0, atol=1e-6)
