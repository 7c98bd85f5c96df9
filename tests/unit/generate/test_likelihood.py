"""What a model holds of a given text: against the plain forward pass, and against what generation saw."""

import math

import pytest
import torch

from pellucid.generate.likelihood import likelihood
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM
from pellucid.model.decoding import decode

SIZES = {"vocab_size": 50, "d_model": 16, "num_heads": 2, "max_seq_len": 24}
PROMPT = [3, 14, 15, 9, 2, 6]


@torch.no_grad()
def livelier(model):
    """Weights eight times as large: the distributions are far from even."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(8)
    return model.eval()


@pytest.fixture(scope="module")
def decoder():
    return livelier(DecoderLM(DecoderConfig(**SIZES, num_layers=2, dropout=0.5)))


@pytest.fixture(scope="module")
def encoder_decoder():
    return livelier(
        EncoderDecoderLM(EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=2))
    )


def by_hand(logits, ids):
    """-log p and entropy in float64, an id at a time."""
    surprise, entropy = [], []
    for row, number in zip(logits.double().tolist(), ids, strict=True):
        largest = max(row)
        weights = [math.exp(value - largest) for value in row]
        shares = [weight / sum(weights) for weight in weights]
        surprise.append(-math.log(shares[number]))
        entropy.append(-sum(share * math.log(share) for share in shares if share > 0))
    return surprise, entropy


def assert_equal(found, logits, ids):
    surprise, entropy = by_hand(logits, ids)
    assert found.surprise == pytest.approx(surprise, rel=1e-4, abs=1e-5)
    assert found.entropy == pytest.approx(entropy, rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_it_is_that_of_one_pass_over_prompt_and_text(decoder):
    ids = [1, 49, 7, 7, 30]
    logits = decoder(torch.tensor([[*PROMPT, *ids]]))[0, len(PROMPT) - 1 : -1]
    assert_equal(likelihood(decoder, PROMPT, ids), logits, ids)


@torch.no_grad()
def test_an_encoder_decoder_reads_the_prompt_as_its_source(encoder_decoder):
    ids = [1, 49, 7, 7, 30]
    target = torch.tensor([[encoder_decoder.start_id, *ids[:-1]]])
    logits = encoder_decoder(torch.tensor([PROMPT]), target)[0]
    assert_equal(likelihood(encoder_decoder, PROMPT, ids), logits, ids)


@pytest.mark.parametrize("prompt", [PROMPT, [5] * 60], ids=["short", "longer than the context"])
@pytest.mark.parametrize("at_once", [1, 5, 128])
@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_it_sees_what_generation_saw_beyond_the_context_too(request, monkeypatch, family, at_once, prompt):
    monkeypatch.setattr("pellucid.generate.likelihood._AT_ONCE", at_once)
    model = request.getfixturevalue(family)
    generator, seen = torch.Generator().manual_seed(0), []

    def pick(logits, _):
        seen.append(logits[0])
        return torch.randint(0, 50, (1,), generator=generator)

    ids = [int(new) for new in decode(model, torch.tensor([prompt]), 70, pick)]
    assert_equal(likelihood(model, prompt, ids), torch.stack(seen), ids)


@torch.no_grad()
def test_ids_that_the_tokenizer_has_not_have_no_share(decoder):
    ids = [1, 29]
    logits = decoder(torch.tensor([[*PROMPT, *ids]]))[0, len(PROMPT) - 1 : -1, :30]
    assert_equal(likelihood(decoder, PROMPT, ids, vocab_size=30), logits, ids)


def test_an_even_distribution_surprises_as_much_as_it_is_open():
    model = DecoderLM(DecoderConfig(**SIZES, num_layers=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = likelihood(model, PROMPT, [4, 5])
    assert found.surprise == pytest.approx([math.log(50)] * 2)
    assert found.entropy == pytest.approx([math.log(50)] * 2)


def test_dropout_is_off_and_the_model_is_left_as_it_was(decoder):
    decoder.train()
    first, again = (likelihood(decoder, PROMPT, [1, 2, 3]) for _ in range(2))
    assert first == again
    assert decoder.training
    decoder.eval()


def test_of_no_text_there_is_nothing(decoder):
    assert likelihood(decoder, PROMPT, []).surprise == ()
