"""The numbers against a direct computation, window by window, over the whole logits."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pellucid.data.evaluation import evaluation_batches
from pellucid.data.shards import Split
from pellucid.errors import DataError
from pellucid.evaluate import perplexity
from pellucid.evaluate.perplexity import Perplexity, evaluate_split
from pellucid.evaluate.scoring import score_windows
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision, choose_precision
from pellucid.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

CONTEXT = 12
CPU = Device("cpu", "for a test", has_bf16=True, can_compile=False, compile_reason="")
FP32 = choose_precision("fp32", CPU)
TEXT = "naïve café: 42 €, déjà vu 🙂, and plain words to the end of it"


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def model() -> DecoderLM:
    """Far enough from uniform that a wrong context or target shows, and with dropout that must be off."""
    config = DecoderConfig(
        vocab_size=300, d_model=16, num_layers=2, num_heads=2, max_seq_len=CONTEXT, dropout=0.3
    )
    model = config.build(seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def split(*shards: np.ndarray) -> Split:
    return Split("val", tuple(shard.astype(np.uint16) for shard in shards))


def direct(
    model: DecoderLM,
    tokenizer: Tokenizer,
    shards: Split,
    seq_len: int = CONTEXT,
    max_tokens: int | None = None,
) -> Perplexity:
    """The same by hand: a window at a time, plain logits, torch's own loss; bytes counted id by id."""
    was_training = model.training
    model.eval()
    total, tokens, scored_bytes = 0.0, 0, 0
    special = set(tokenizer.special_tokens.values())
    for shard in shards.shards:
        ids = torch.from_numpy(shard.astype(np.int64))
        for start in range(0, len(ids) - 1, seq_len):
            window = ids[start : start + seq_len + 1]
            if max_tokens is not None:
                window = window[: max_tokens - tokens + 1]
            if len(window) < 2:
                continue
            with torch.no_grad():
                logits = model(window[None, :-1])[0]
            total += F.cross_entropy(logits.double(), window[1:], reduction="sum").item()
            tokens += len(window) - 1
            kept = [i for i in window[1:].tolist() if i not in special]
            scored_bytes += sum(len(tokenizer.decode_bytes([i])) for i in kept)
    model.train(was_training)
    loss = total / tokens
    return Perplexity(loss, math.exp(loss), total / math.log(2) / scored_bytes, tokens, scored_bytes)


def assert_equal(found: Perplexity, expected: Perplexity) -> None:
    assert (found.tokens, found.bytes) == (expected.tokens, expected.bytes)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("batch_tokens", [8192, 3 * CONTEXT, 1])
@pytest.mark.parametrize("seq_len", [None, 5, 1])
def test_a_split_equals_the_direct_computation(
    model: DecoderLM,
    tokenizer: ByteTokenizer,
    seq_len: int | None,
    batch_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shards whose ends fall inside, at and just after the end of a window, and one too short to score."""
    monkeypatch.setattr(perplexity, "_BATCH_TOKENS", batch_tokens)
    ids = tokenizer.encode(TEXT * 2)
    shards = split(ids[:30], ids[30 : 30 + 2 * CONTEXT + 1], ids[:1], ids[60 : 60 + CONTEXT], ids[80:82])
    found = evaluate_split(model, tokenizer, shards, FP32, seq_len=seq_len)
    assert found.tokens == 29 + 2 * CONTEXT + 0 + CONTEXT - 1 + 1
    assert_equal(found, direct(model, tokenizer, shards, seq_len or CONTEXT))


@pytest.mark.parametrize("max_tokens", [1, 7, CONTEXT, CONTEXT + 1, 40, 1000])
def test_only_the_first_tokens_where_so_many_are_wanted(
    model: DecoderLM, tokenizer: ByteTokenizer, max_tokens: int
) -> None:
    ids = tokenizer.encode(TEXT)
    shards = split(ids[:30], ids[30:])
    found = evaluate_split(model, tokenizer, shards, FP32, max_tokens=max_tokens)
    assert found.tokens == min(max_tokens, len(ids) - 2)
    assert_equal(found, direct(model, tokenizer, shards, max_tokens=max_tokens))


def test_bytes_are_those_of_the_text(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    """The byte tokenizer has an id a byte: bits per byte are the loss in bits, € counts three times."""
    found = evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32)
    assert found.bytes == found.tokens == len(TEXT.encode()) - 1  # the first is not predicted
    assert found.bytes > len(TEXT)
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2), rel=1e-12)


def test_a_token_of_several_bytes_counts_them_all(model: DecoderLM) -> None:
    tokenizer = CharTokenizer("€🙂ab")
    found = evaluate_split(model, tokenizer, split(tokenizer.encode("a€🙂b€")), FP32)
    assert (found.tokens, found.bytes) == (4, 3 + 4 + 1 + 3)
    assert found.bits_per_byte == pytest.approx(4 * found.loss / math.log(2) / 11, rel=1e-12)


def test_special_tokens_are_predicted_but_are_no_bytes_of_text(model: DecoderLM) -> None:
    tokenizer = ByteTokenizer(["<pad>"])
    ids = tokenizer.encode("one<|endoftext|>two<pad>é", allow_special=True)
    found = evaluate_split(model, tokenizer, split(ids), FP32)
    assert found.tokens == 2 + 1 + 3 + 1 + 2
    assert found.bytes == 2 + 3 + 2
    assert_equal(found, direct(model, tokenizer, split(ids)))


def test_nothing_but_special_tokens_has_no_bits_per_byte(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    found = evaluate_split(model, tokenizer, split(np.array([256, 256, 256])), FP32)
    assert (found.tokens, found.bytes) == (2, 0)
    assert math.isnan(found.bits_per_byte)
    assert math.isfinite(found.loss)


def test_a_split_too_short_to_score(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    with pytest.raises(DataError, match="scoring needs two in a row"):
        evaluate_split(model, tokenizer, split(np.array([65])), FP32)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model: DecoderLM, tokenizer: ByteTokenizer, training: bool) -> None:
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32).loss for _ in range(2)}
    assert len(scores) == 1  # dropout was off, whatever the mode
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.arange(4)[None]).sum().backward()  # nothing of inference mode stays


def test_the_model_is_left_as_it_was_when_scoring_fails(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    model.train()
    with pytest.raises(ValueError, match="more than max_seq_len"):
        evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32, seq_len=CONTEXT + 1)
    assert model.training
    assert not torch.is_inference_mode_enabled()


def test_no_mode_holds_for_the_caller_between_two_batches(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    model.train()
    precision = Precision("bf16", CPU, "for a test")
    batches = evaluation_batches(split(tokenizer.encode(TEXT)), CONTEXT, 1)
    seen = 0
    for targets, losses in score_windows(model, batches, precision):
        assert model.training
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert targets.shape == losses.shape
        seen += len(targets)
    assert seen == len(tokenizer.encode(TEXT)) - 1


def test_scores_come_in_the_order_of_the_text(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    scored = list(score_windows(model, evaluation_batches(split(ids), 5, 2), FP32))
    targets = np.concatenate([targets for targets, _ in scored])
    losses = np.concatenate([losses for _, losses in scored])
    assert np.array_equal(targets, ids[1:])
    assert losses.dtype == np.float32
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(ids[5:10].astype(np.int64))[None])[0]
    expected = F.cross_entropy(logits, torch.from_numpy(ids[6:11].astype(np.int64)), reduction="none")
    np.testing.assert_allclose(losses[5:10], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_bf16_comes_near_float32(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    exact = evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32).loss
    narrow = evaluate_split(
        model, tokenizer, split(tokenizer.encode(TEXT)), choose_precision("bf16", CPU)
    ).loss
    assert narrow != exact
    assert narrow == pytest.approx(exact, rel=0.02)


def test_an_untrained_uniform_model_needs_the_bits_of_its_vocabulary(tokenizer: ByteTokenizer) -> None:
    model = DecoderConfig(vocab_size=256, d_model=8, num_layers=1, num_heads=1, max_seq_len=CONTEXT).build()
    with torch.no_grad():
        model.embedding.table.zero_()
    found = evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32)
    assert found.loss == pytest.approx(math.log(256), rel=1e-6)
    assert found.perplexity == pytest.approx(256, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(8, rel=1e-6)


def test_a_loss_beyond_the_largest_number_has_an_infinite_perplexity(tokenizer: ByteTokenizer) -> None:
    """The state after 'a' is [1, …, 1]: 'a' has the logit 8000 and 'b' has -8000."""
    model = DecoderConfig(vocab_size=256, d_model=8, num_layers=1, num_heads=1, max_seq_len=CONTEXT).build()
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.zero_()
        model.embedding.table.zero_()
        model.embedding.table[ord("a")], model.embedding.table[ord("b")] = 1000, -1000
    found = evaluate_split(model, tokenizer, split(tokenizer.encode("ab")), FP32)
    assert found.loss > 700
    assert found.perplexity == math.inf


def test_the_dictionary_has_every_number(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    found = evaluate_split(model, tokenizer, split(tokenizer.encode(TEXT)), FP32)
    assert found.to_dict() == {
        "loss": found.loss,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
        "tokens": found.tokens,
        "bytes": found.bytes,
    }
