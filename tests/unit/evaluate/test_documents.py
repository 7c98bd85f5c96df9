"""Documents and streams against a direct computation: one token at a time, in float64, softmax by hand."""

import copy
import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError
from pellucid.evaluate.documents import Passage, evaluate_documents, score_sequences
from pellucid.evaluate.perplexity import evaluate_split
from pellucid.evaluate.record import TextEvaluation
from pellucid.evaluate.splits import evaluate_split_units
from pellucid.evaluate.token_record import DocumentTokens, document_tokens, tokens_json
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import choose_precision
from pellucid.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

CONTEXT = 12
FP32 = choose_precision(
    "fp32", Device("cpu", "for a test", has_bf16=True, can_compile=False, compile_reason="")
)
WORDS = "naïve café: 42 €, déjà vu 🙂, and plain words to the end of it, of many lengths".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 5]) for i in range(25)]
LONG = " ".join(WORDS * 3)


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def model() -> DecoderLM:
    """Far enough from uniform that a wrong context or target shows, and with dropout that must be off."""
    sizes = {"vocab_size": 300, "d_model": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": CONTEXT}
    model = DecoderConfig(**sizes, dropout=0.3).build(seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def direct(model: DecoderLM, ids: list[int], unscored: int, window: int, stride: int) -> list[float]:
    """-log p of each id behind the unscored ones: its own forward pass over its own context, in float64."""
    exact = copy.deepcopy(model).double().eval()
    losses = []
    for place in range(max(1, unscored), len(ids)):
        moved = max(
            0, -(-(place - window) // stride)
        )  # how often the window has moved before it shows this target
        context = ids[moved * stride : place]
        assert len(context) <= window
        with torch.no_grad():
            logits = exact(torch.tensor([context]))[0, -1].numpy()
        shifted = logits - logits.max()
        losses.append(float(np.log(np.exp(shifted).sum()) - shifted[ids[place]]))
    return losses


def passages(texts: list[str]) -> list[Passage]:
    return [Passage(text, where=f"line {number}") for number, text in enumerate(texts, start=1)]


def score(model: DecoderLM, tokenizer: Tokenizer, texts: list[str], **settings) -> TextEvaluation:
    return evaluate_documents(model, tokenizer, passages(texts), FP32, **settings)


@pytest.mark.parametrize(("window", "stride"), [(None, None), (8, 8), (8, 3), (CONTEXT, 1), (1, 1)])
def test_documents_equal_the_direct_computation(
    model: DecoderLM, tokenizer: ByteTokenizer, window: int | None, stride: int | None
) -> None:
    found = score(model, tokenizer, TEXTS, window=window, stride=stride)
    width = window or CONTEXT
    expected = [
        direct(model, [256, *tokenizer.encode(text).tolist()], 1, width, stride or width) for text in TEXTS
    ]
    assert found.unit == "document"
    assert found.units.tokens.tolist() == [len(losses) for losses in expected]
    np.testing.assert_allclose(found.units.losses, [sum(losses) for losses in expected], rtol=1e-6)
    total, size = sum(map(sum, expected)), sum(len(text.encode()) for text in TEXTS)
    assert found.loss == pytest.approx(total / sum(map(len, expected)), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(total / sum(map(len, expected))), rel=1e-6)
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / size, rel=1e-6)
    assert found.text_sha256 == hashlib.sha256("".join(TEXTS).encode()).hexdigest()


def test_stride_equal_to_the_window_is_the_unstrided_result(
    model: DecoderLM, tokenizer: ByteTokenizer
) -> None:
    ids = np.array([256, *tokenizer.encode(LONG).tolist()], dtype=np.uint16)
    plain = evaluate_split(model, tokenizer, Split("text", (ids,)), FP32, seq_len=8)
    strided = score(model, tokenizer, [LONG], window=8, stride=8)
    assert (strided.tokens, strided.bytes) == (plain.tokens, plain.bytes)
    assert strided.loss == pytest.approx(plain.loss, rel=1e-7)
    assert strided.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-7)
    assert score(model, tokenizer, [LONG], window=8, stride=2).loss != pytest.approx(plain.loss, rel=1e-4)


def test_a_stream_does_not_depend_on_where_documents_end(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    """Borders inside words, one document, many, and one a character, over 20 blocks' worth of text."""
    text = LONG * 8
    cuts = [[text], [text[:7], text[7:2000], text[2000:]], list(text)]
    found = [score(model, tokenizer, parts, reads="stream") for parts in cuts]
    assert len({(one.loss, one.bits_per_byte, one.tokens, one.text_sha256) for one in found}) == 1
    assert all(np.array_equal(one.units.losses, found[0].units.losses) for one in found)
    anew = [score(model, tokenizer, parts).bits_per_byte for parts in cuts]
    assert len(set(anew)) == 3  # where each begins anew, it does


def test_batches_and_groups_change_nothing(
    model: DecoderLM, tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(model, tokenizer, TEXTS, stride=5)
    monkeypatch.setattr("pellucid.evaluate.documents._BATCH_TOKENS", 1)
    monkeypatch.setattr("pellucid.evaluate.documents._GROUP_TOKENS", 40)
    alone = score(model, tokenizer, TEXTS, stride=5)
    np.testing.assert_allclose(alone.units.losses, whole.units.losses, rtol=1e-6)
    assert alone.text_sha256 == whole.text_sha256


def test_token_losses_sum_to_the_totals(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    kept: list[DocumentTokens] = []
    found = score(model, tokenizer, TEXTS, stride=5, keep=kept.append)
    sums = [one.losses.sum(dtype=np.float64) for one in kept]
    np.testing.assert_allclose(sums, found.units.losses, rtol=1e-6)
    assert [one.where for one in kept] == [f"line {i}" for i in range(1, 26)]
    for text, one in zip(TEXTS, kept, strict=True):
        assert one.ids == tuple(tuple(character.encode()) for character in text)
        assert one.texts == tuple(text)
        assert one.starts.tolist() == [len(text[:place].encode()) for place in range(len(text))]
        assert one.tokens == len(text.encode())
    tree = json.loads(tokens_json(["a"], "b", [kept[0].beside(kept[0])]))
    first = tree["documents"][0]["tokens"][0]
    assert (first["text"], first["ids"], first["byte"]) == ("n", [ord("n")], 0)
    assert first["nats"] == first["nats_against"] == pytest.approx(kept[0].losses[0], abs=1e-5)
    with pytest.raises(DataError, match="line 1: the models cut it into different tokens"):
        kept[0].beside(kept[1])


def test_few_documents_are_cut_into_blocks_by_bytes_alone(model: DecoderLM) -> None:
    """Two tokenizers, three documents: equal borders, and each token in the block of its first byte."""
    texts = [LONG * 9, LONG * 7, "€" * 900]
    size = sum(len(text.encode()) for text in texts)
    for tokenizer in (ByteTokenizer(), CharTokenizer("".join(sorted(set("".join(texts)))))):
        found = score(model, tokenizer, texts)
        sizes = [2048] * (size // 2048) + [size % 2048]
        assert found.units.bytes.tolist() == sizes
        assert found.unit == "block of 2,048 bytes"
        expected, offset = np.zeros(len(sizes)), 0
        for text in texts:
            ids = tokenizer.encode(text)
            begun = np.concatenate([[tokenizer.end_of_text_id], ids]).astype(np.uint32)
            (losses,) = score_sequences(model, [begun], FP32, unscored=1, window=CONTEXT, stride=CONTEXT)
            for token, loss in zip(ids.tolist(), losses.tolist(), strict=True):
                expected[offset // 2048] += loss
                offset += len(tokenizer.decode_bytes([token]))
        np.testing.assert_allclose(found.units.losses, expected, rtol=1e-9)


def without_end_of_text(alphabet: str) -> CharTokenizer:
    """As some tokenizer.json files are: no special token ends a text."""
    tokenizer = CharTokenizer(alphabet)
    tokenizer.end_of_text_id = None
    return tokenizer


def test_a_tokenizer_without_an_end_of_text_begins_after_a_line_end(model: DecoderLM) -> None:
    tokenizer = without_end_of_text("\nabc")
    found = score(model, tokenizer, ["abcabc", "cab"])
    newline = tokenizer.encode("\n").tolist()
    expected = sum(
        sum(direct(model, newline + tokenizer.encode(text).tolist(), 1, CONTEXT, CONTEXT))
        for text in ("abcabc", "cab")
    )
    assert (found.tokens, found.bytes) == (9, 9)
    assert found.loss * 9 == pytest.approx(expected, rel=1e-6)


def test_without_that_either_the_first_token_is_left_out(model: DecoderLM) -> None:
    tokenizer = without_end_of_text("€ab")
    kept: list[DocumentTokens] = []
    found = score(model, tokenizer, ["€ab", "ab€"], keep=kept.append)
    assert (found.tokens, found.bytes) == (4, 2 + 4)
    assert math.isnan(kept[0].losses[0])
    tree = json.loads(tokens_json(["a"], "b", kept))
    assert tree["documents"][0]["tokens"][0]["nats"] is None
    expected = sum(
        sum(direct(model, tokenizer.encode(text).tolist(), 0, CONTEXT, CONTEXT)) for text in ("€ab", "ab€")
    )
    assert found.loss * 4 == pytest.approx(expected, rel=1e-6)


def test_parts_of_a_text(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    mixed = [Passage(text, "even" if i % 2 == 0 else "odd") for i, text in enumerate(TEXTS)]
    for reads in ("documents", "stream"):
        found = evaluate_documents(model, tokenizer, mixed, FP32, reads=reads)
        assert found.domains == ("even", "odd")
        for name, parts in (("even", TEXTS[::2]), ("odd", TEXTS[1::2])):
            alone = score(model, tokenizer, parts, reads=reads)
            assert found.of_domain(name).loss == pytest.approx(alone.loss, rel=1e-6)
            assert found.of_domain(name).bytes == alone.bytes


def test_only_so_many_first_tokens(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    whole, part = score(model, tokenizer, TEXTS), score(model, tokenizer, TEXTS, max_tokens=300)
    assert (part.tokens, part.bytes) == (300, 300)
    full = int(np.searchsorted(np.cumsum(whole.units.tokens), 300))
    np.testing.assert_allclose(part.units.losses[:full], whole.units.losses[:full], rtol=1e-6)


@pytest.mark.parametrize("texts", [[], ["x"]])
def test_too_little_text(model: DecoderLM, tokenizer: ByteTokenizer, texts: list[str]) -> None:
    with pytest.raises(
        DataError, match=rf"the text has {len(texts)} token\(s\) to score; scoring needs at least 2"
    ):
        score(model, tokenizer, texts)


def test_what_cannot_be_encoded_is_named_by_its_place(model: DecoderLM) -> None:
    with pytest.raises(DataError, match="line 2: "):
        score(model, CharTokenizer("ab"), ["ab", "axb"])


def test_a_stride_longer_than_the_window(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    with pytest.raises(ConfigError, match="--stride 9: wanted 1 to 8"):
        score(model, tokenizer, TEXTS, window=8, stride=9)


def test_progress_counts_up_to_all_tokens(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    told: list[int] = []
    found = score(model, tokenizer, TEXTS, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == found.tokens


# Prepared splits ------------------------------------------------------------------------------------


def prepared(
    tokenizer: Tokenizer, *, shard: int | None = None, has_starts: bool = True, texts: Sequence[str] = TEXTS
) -> Split:
    """The texts as `prepare` lays them out: each followed by the end of text; cut into shards of equal length."""
    end = tokenizer.end_of_text_id
    parts = [np.array([*tokenizer.encode(text).tolist(), end], dtype=np.uint16) for text in texts]
    ids = np.concatenate(parts)
    begins = np.cumsum([0, *map(len, parts[:-1])])
    width = shard or len(ids)
    firsts = range(0, len(ids), width)
    starts = tuple((begins[(begins >= f) & (begins < f + width)] - f).astype(np.uint64) for f in firsts)
    return Split("val", tuple(ids[f : f + width] for f in firsts), starts if has_starts else ())


@pytest.mark.parametrize("has_starts", [True, False])
@pytest.mark.parametrize("shard", [None, 100])
@pytest.mark.parametrize("max_tokens", [None, 150])
def test_a_split_gives_the_numbers_of_training_and_the_first_of_each_shard(
    model: DecoderLM, tokenizer: ByteTokenizer, shard: int | None, max_tokens: int | None, has_starts: bool
) -> None:
    split = prepared(tokenizer, shard=shard, has_starts=has_starts)
    found = evaluate_split_units(model, tokenizer, split, FP32, data="val", window=8, max_tokens=max_tokens)
    ids = np.concatenate(split.shards)[:max_tokens].tolist()
    assert found.tokens == len(ids)
    assert found.bytes == sum(token < 256 for token in ids)
    firsts = range(0, len(ids), shard or len(ids))
    logged = evaluate_split(
        model, tokenizer, split, FP32, seq_len=8, max_tokens=max_tokens and max_tokens - len(firsts)
    )
    assert logged.tokens == len(ids) - len(firsts)
    text = [256, *ids]
    of_firsts = sum(direct(model, text[first : first + 2], 1, 8, 8)[0] for first in firsts)
    assert found.loss * found.tokens == pytest.approx(logged.loss * logged.tokens + of_firsts, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(found.loss * found.tokens / math.log(2) / found.bytes)
    assert found.unit == ("document" if has_starts else "block of 2,048 bytes")


def test_documents_of_a_split_may_go_on_in_the_next_shard(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    """In windows of one id, a token's loss depends on the one before it alone: so shards change nothing."""
    one = evaluate_split_units(model, tokenizer, prepared(tokenizer), FP32, data="val", window=1)
    cut = evaluate_split_units(model, tokenizer, prepared(tokenizer, shard=100), FP32, data="val", window=1)
    assert len(one.units) == len(cut.units) == len(TEXTS)
    sizes = [len(text.encode()) for text in TEXTS]
    assert one.units.bytes.tolist() == cut.units.bytes.tolist() == sizes
    assert one.units.tokens.tolist() == cut.units.tokens.tolist() == [size + 1 for size in sizes]
    np.testing.assert_allclose(cut.units.losses, one.units.losses, rtol=1e-6)


def test_units_of_a_split_are_those_of_any_tokenizer(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    """Documents, and blocks: a first character of three bytes is one id here and three there."""
    texts = ["€ first", *TEXTS]
    other = CharTokenizer("".join(sorted(set("".join(texts)))))
    for starts in (True, False):
        ours, theirs = (
            evaluate_split_units(
                model, each, prepared(each, texts=texts, has_starts=starts), FP32, data="val"
            )
            for each in (tokenizer, other)
        )
        assert ours.text_sha256 == theirs.text_sha256 == hashlib.sha256("".join(texts).encode()).hexdigest()
        assert ours.units.bytes.tolist() == theirs.units.bytes.tolist()
        assert ours.tokens > theirs.tokens


@pytest.mark.parametrize("shard", [None, 100])
def test_documents_of_a_split_can_be_shown(
    model: DecoderLM, tokenizer: ByteTokenizer, shard: int | None
) -> None:
    kept: list[DocumentTokens] = []
    split = prepared(tokenizer, shard=shard)
    found = evaluate_split_units(model, tokenizer, split, FP32, data="val", keep=kept.append)
    if shard is None:
        assert ["".join(one.texts) for one in kept] == [f"{text}<|endoftext|>" for text in TEXTS]
    assert sum(one.tokens for one in kept) == found.tokens
    shown: dict[str, float] = {}
    for one in kept:
        name = one.where.removesuffix(", further on")
        assert (one.starts[0] > 0) == (name != one.where)
        shown[name] = shown.get(name, 0) + float(one.losses.sum(dtype=np.float64))
    assert list(shown) == [f"document {number}" for number in range(1, len(TEXTS) + 1)]
    np.testing.assert_allclose(list(shown.values()), found.units.losses, rtol=1e-6)


def test_where_documents_are_not_known_shards_are_shown(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    kept: list[DocumentTokens] = []
    split = prepared(tokenizer, shard=100, has_starts=False)
    evaluate_split_units(model, tokenizer, split, FP32, data="val", max_tokens=150, keep=kept.append)
    assert [(one.where, one.tokens) for one in kept] == [("shard 1", 100), ("shard 2", 50)]


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_token_losses_that_are_no_numbers_are_valid_json(tokenizer: ByteTokenizer, loss: float) -> None:
    ids = np.array(list(b"ab"), dtype=np.uint32)
    losses = np.array([loss, 1], dtype=np.float32)
    one = document_tokens(tokenizer, ids, np.arange(3), losses, where="", domain="")
    tree = json.loads(tokens_json(["a"], "b", [one]), parse_constant=pytest.fail)
    assert [token["nats"] for token in tree["documents"][0]["tokens"]] == [str(loss), 1.0]


def test_bytes_that_are_no_text_are_shown_as_such(tokenizer: ByteTokenizer) -> None:
    ids = np.frombuffer(b"a\xc3\xa9b\xe2\x82", dtype=np.uint8).astype(np.uint32)
    losses = np.array([1, 2, 4, 8, 16, 32], dtype=np.float32)
    one = document_tokens(tokenizer, ids, np.arange(7), losses, where="", domain="")
    assert one.texts == ("a", "é", "b", "\ufffd")
    assert one.losses.tolist() == [1, 6, 8, 48]
    assert one.starts.tolist() == [0, 1, 3, 4]
    assert one.ids[1] == (0xC3, 0xA9)


def test_the_parts_of_a_mixture_are_parts_of_its_split(model: DecoderLM, tokenizer: ByteTokenizer) -> None:
    first, second = prepared(tokenizer), prepared(tokenizer, shard=100)
    both = Split(
        "val", (*first.shards, *second.shards), (*first.starts, *second.starts), parts=(first, second)
    )
    found = evaluate_split_units(model, tokenizer, both, FP32, data="val", domains=("a", "b"))
    for name, split in (("a", first), ("b", second)):
        alone = evaluate_split_units(model, tokenizer, split, FP32, data="val")
        assert found.of_domain(name).tokens == alone.tokens
        assert found.of_domain(name).loss == pytest.approx(alone.loss, rel=1e-6)
