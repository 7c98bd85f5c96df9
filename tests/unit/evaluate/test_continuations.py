"""Continuations against a direct computation in float64: one request at a time, without padding, whole softmax."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.config import from_tree
from pellucid.errors import DataError
from pellucid.evaluate.continuations import Request, Scored, encode, score_continuations, score_encoded
from pellucid.evaluate.rows import Encoded, read_together
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import choose_precision
from pellucid.tokenizers import ByteTokenizer
from pellucid.tokenizers.tiktoken import GPT2Config

FP32 = choose_precision(
    "fp32", Device("cpu", "for a test", has_bf16=True, can_compile=False, compile_reason="")
)
BF16 = choose_precision("bf16", FP32.device)
TOKENIZER = ByteTokenizer()
END, WINDOW = 256, 32

SHAPE = {
    "vocab_size": 257,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 2,
    "max_seq_len": WINDOW,
    "dropout": 0.3,
}
DECODERS = {
    "rotary": {},
    "learned": {"position": {"kind": "learned"}},
    "alibi": {"position": {"kind": "alibi"}},
    "t5": {"position": {"kind": "t5"}},
    "window": {"attention": {"window": 6, "window_pattern": "LG"}},
    "soft-capped": {"attention": {"softcap": 5.0}, "logit_softcap": 8.0},
    "flex": {"attention": {"kernel": "flex"}},
    "prefix": {"prompt_mask": "prefix"},
    "padded table": {"vocab_multiple": 64},
}
ENDINGS = ["to be", "x", "not to be", "be", "to", " so long", "é"]
REQUESTS = [
    *[Request("a question", ending) for ending in ENDINGS],
    Request("", "a text from its beginning"),
    Request("other ", "spaces"),
    *[Request("Yes or no?", ending) for ending in "YNMK"],
    Request(" \n", "spaces alone"),
    Request("a question", "to be"),
]


Model = TypeVar("Model", bound=torch.nn.Module)


def wide(model: Model) -> Model:
    """Far enough from uniform that a wrong context shows; in float64, and training, as a caller may have left it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.double().train()


def decoder(name: str = "rotary") -> DecoderLM:
    return wide(from_tree(DecoderConfig, {**SHAPE, **DECODERS[name]}).build(seed=1))


def encoder_decoder() -> EncoderDecoderLM:
    sizes = {name: value for name, value in SHAPE.items() if name != "num_layers"}
    return wide(
        EncoderDecoderConfig(**sizes, num_encoder_layers=2, num_decoder_layers=2, start_id=END).build(seed=1)
    )


def direct(
    model: DecoderLM | EncoderDecoderLM, context: list[int], continuation: list[int]
) -> tuple[float, bool]:
    """Each token of the continuation by a forward pass of its own over all before it, which must fit the window."""
    total, is_greedy = 0.0, True
    model.eval()
    for place, target in enumerate(continuation):
        before = torch.tensor([[*context, *continuation[:place]]])
        with torch.no_grad():
            if isinstance(model, EncoderDecoderLM):
                start = torch.tensor([[END, *continuation[:place]]])
                logits = model(torch.tensor([context]), start)[0, -1]
            elif model.config.prompt_mask == "prefix":
                states = model.hidden(before, prefix_lengths=torch.tensor([len(context)])).states
                logits = model.head(states)[0, -1]
            else:
                logits = model(before)[0, -1]
        total += logits.softmax(dim=-1)[target].log().item()
        is_greedy = is_greedy and int(logits.argmax()) == target
    model.train()
    return total, is_greedy


def ids_of(request: Request) -> tuple[list[int], list[int]]:
    """Bytes: a whole text's ids are those of its parts."""
    context = request.context.rstrip()
    spaces = request.context[len(context) :]
    return list(context.encode()) or [END], list((spaces + request.continuation).encode())


def agree(found: Scored, wanted: tuple[float, bool]) -> bool:
    return found.log_probability == pytest.approx(wanted[0], rel=1e-10) and found.is_greedy == wanted[1]


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_scores_as_a_direct_computation_does(name: str):
    model = decoder(name)
    found = score_continuations(model, TOKENIZER, REQUESTS, FP32)
    for request, scored in zip(REQUESTS, found, strict=True):
        context, continuation = ids_of(request)
        assert agree(scored, direct(model, context, continuation))
        assert (scored.tokens, scored.truncated) == (len(continuation), False)
    assert model.training


def test_an_encoder_decoder_reads_the_context_as_its_source():
    model = encoder_decoder()
    for request, scored in zip(REQUESTS, score_continuations(model, TOKENIZER, REQUESTS, FP32), strict=True):
        assert agree(scored, direct(model, *ids_of(request)))


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_what_is_read_together_changes_nothing(batch_tokens: int):
    model = decoder()
    alone = [score_continuations(model, TOKENIZER, [each], FP32)[0] for each in REQUESTS]
    for one, found in zip(
        alone, score_continuations(model, TOKENIZER, REQUESTS, FP32, batch_tokens=batch_tokens), strict=True
    ):
        assert agree(found, (one.log_probability, one.is_greedy))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a long context", "bb"]), st.text("xyz", min_size=1, max_size=9)),
        min_size=1,
        max_size=9,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_requests_is_kept(pairs: list[tuple[str, str]], random) -> None:
    model, requests = decoder(), [Request(*pair) for pair in pairs]
    order = list(range(len(requests)))
    random.shuffle(order)
    found = score_continuations(model, TOKENIZER, requests, FP32)
    shuffled = score_continuations(model, TOKENIZER, [requests[i] for i in order], FP32)
    for place, number in enumerate(order):
        assert shuffled[place].log_probability == pytest.approx(found[number].log_probability, rel=1e-10)
        assert shuffled[place].tokens == len(requests[number].continuation)


def test_what_greedy_decoding_writes_is_greedy_and_nothing_else():
    model, context = decoder(), list(b"a beginning")
    written = model.generate(torch.tensor(context), 8)[len(context) :].tolist()
    other = [*written[:-1], (written[-1] + 1) % END]
    found = score_encoded(
        model, [Encoded(tuple(context), tuple(ids)) for ids in (written, other, other[-1:])], FP32
    )
    assert [each.is_greedy for each in found] == [True, False, False]


def test_continuations_of_a_context_share_a_row_and_answers_of_one_token_one_column():
    requests = encode(TOKENIZER, [Request("Yes or no?", answer) for answer in ("Y", "N", "?!")])
    (row,) = read_together(requests, WINDOW, WINDOW)
    assert row.inputs.tolist() == list(b"Yes or no?!"[:10]) + list(b"?")
    assert row.columns.tolist() == [9, 9, 9, 10]
    assert row.owners.tolist() == [0, 1, 2, 2]
    assert row.positions is not None
    assert row.positions.tolist() == list(range(11))


def test_rows_are_shared_only_as_far_as_they_fit():
    requests = [Encoded(tuple(range(20)), tuple(range(6))) for _ in range(5)]
    assert [row.size for row in read_together(requests, WINDOW, WINDOW)] == [30, 30, 25]


def test_texts_that_share_only_their_first_id_are_read_apart():
    requests = [Encoded((END,), tuple(range(20))) for _ in range(3)]
    assert [row.size for row in read_together(requests, 1000, 1000)] == [20, 20, 20]


# The window -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "continuation", "is_cut"),
    [(24, 9, False), (25, 9, True), (90, 9, True), (1, 32, False), (2, 32, True)],
)
def test_a_context_is_cut_at_its_beginning_to_what_the_window_holds(
    context: int, continuation: int, is_cut: bool
):
    model = decoder()
    before, after = list(range(context)), list(range(100, 100 + continuation))
    (found,) = score_encoded(model, [Encoded(tuple(before), tuple(after))], FP32)
    # The last token is no input, so that the window holds one more of the whole.
    kept = before[-(WINDOW + 1 - continuation) :]
    assert agree(found, direct(model, kept, after))
    assert found.truncated == is_cut


def test_a_continuation_longer_than_the_window_is_scored_in_parts():
    model, after = decoder(), [7 * i % 251 for i in range(80)]
    (found,) = score_encoded(model, [Encoded((1, 2, 3), tuple(after))], FP32)
    parts = [([3], after[:32]), (after[31:32], after[32:64]), (after[47:64], after[64:])]
    wanted = [direct(model, *part) for part in parts]
    assert agree(found, (sum(log for log, _ in wanted), all(greedy for _, greedy in wanted)))
    assert (found.tokens, found.truncated) == (80, True)


def test_the_source_of_an_encoder_decoder_is_cut_and_its_target_scored_in_parts():
    model = encoder_decoder()
    source, target = list(range(50)), list(range(100, 140))
    cut, long = score_encoded(model, [Encoded(tuple(source), (5, 6)), Encoded((9,), tuple(target))], FP32)
    assert agree(cut, direct(model, source[-WINDOW:], [5, 6]))
    assert cut.truncated
    assert long.truncated
    with torch.no_grad():
        model.eval()
        first = model(torch.tensor([[9]]), torch.tensor([[END, *target[:31]]]))[0].log_softmax(-1)
        rest = model(torch.tensor([[9]]), torch.tensor([target[7:39]]))[0].log_softmax(-1)
    wanted = sum(first[i, t].item() for i, t in enumerate(target[:32]))
    wanted += sum(rest[24 + i, t].item() for i, t in enumerate(target[32:]))
    assert long.log_probability == pytest.approx(wanted, rel=1e-10)


# Text to ids ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2():
    return GPT2Config().build()


def test_spaces_that_end_a_context_belong_to_the_continuation(gpt2):
    (found,) = encode(gpt2, [Request("The cat sat on the ", "mat")])
    assert gpt2.decode(found.context) == "The cat sat on the"
    assert found.continuation == tuple(gpt2.encode(" mat"))


def test_the_whole_is_divided_after_as_many_ids_as_the_context_has(gpt2):
    (found,) = encode(gpt2, [Request("an unbeliev", "able thing")])
    whole = gpt2.encode("an unbelievable thing").tolist()
    border = len(gpt2.encode("an unbeliev"))
    assert (list(found.context), list(found.continuation)) == (whole[:border], whole[border:])


def test_something_is_left_to_score_where_both_melt_into_one_id(gpt2):
    (found,) = encode(gpt2, [Request("th", "e")])
    assert (found.context, gpt2.decode(found.continuation)) == ((gpt2.end_of_text_id,), "the")


def test_an_empty_context_is_the_end_of_text(gpt2):
    (found,) = encode(gpt2, [Request("", "A text")])
    assert found == Encoded((gpt2.end_of_text_id,), tuple(gpt2.encode("A text")))


def test_without_an_end_of_text_a_text_begins_after_a_newline():
    plain = ByteTokenizer()
    plain.end_of_text_id = None  # as a tokenizer.json may be
    assert encode(plain, [Request("", "ab")]) == [Encoded((10,), (97, 98))]


def test_a_continuation_without_text_is_refused():
    with pytest.raises(DataError, match="request 1: the continuation is empty"):
        score_continuations(decoder(), TOKENIZER, [Request("a", "b"), Request("a", "")], FP32)


class Deaf(ByteTokenizer):
    """Makes no ids of é, as a tokenizer with a normalizer may do."""

    def encode(self, text, *, allow_special=False):
        return super().encode(text.replace("é", ""), allow_special=allow_special)


@pytest.mark.parametrize("context", ["a", "é", ""])
@pytest.mark.parametrize("is_source", [False, True])
def test_a_continuation_without_ids_is_refused(context: str, is_source: bool):
    with pytest.raises(DataError, match="request 1: the tokenizer makes no ids of the continuation"):
        encode(Deaf(), [Request("a", "b"), Request(context, "é")], is_source=is_source)
    with pytest.raises(DataError, match="request 0: the tokenizer makes no ids"):
        score_encoded(decoder(), [Encoded((1,), ())], FP32)


@pytest.mark.parametrize("is_source", [False, True])
def test_a_context_without_ids_is_the_end_of_text(is_source: bool):
    (found,) = encode(Deaf(), [Request("é", "ab")], is_source=is_source)
    assert found == Encoded((END,), (97, 98))


def test_no_requests_have_no_scores():
    assert score_continuations(decoder(), TOKENIZER, [], FP32) == []


def test_progress_ends_at_the_whole():
    told: list[tuple[int, int]] = []
    score_continuations(
        decoder(), TOKENIZER, REQUESTS, FP32, batch_tokens=40, progress=lambda *now: told.append(now)
    )
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0


# Speed -----------------------------------------------------------------------------------------------


def test_narrow_copies_of_weights_are_made_once_for_all_batches():
    model = decoder().float()
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    copied: list[int] = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in addresses:
                copied.append(args[0].data_ptr())
            return func(*args, **(kwargs or {}))

    batches: list[tuple[int, int]] = []
    with Copies():
        score_continuations(
            model, TOKENIZER, REQUESTS, BF16, batch_tokens=40, progress=lambda *now: batches.append(now)
        )
    assert len(batches) > 2
    assert len(copied) == len(set(copied)) > 10
