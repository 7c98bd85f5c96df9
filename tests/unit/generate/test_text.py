"""Prompt → text: pieces of whole characters, stops, long and empty prompts, equal text for equal seeds."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.config import Config
from pellucid.errors import TokenizerError
from pellucid.generate.engine import Options
from pellucid.generate.sampling import PRESETS, SamplingConfig
from pellucid.generate.text import generate_text, stream_text
from pellucid.model import DecoderConfig, DecoderLM, Hidden, KVCache
from pellucid.model.decoding import tokens_read
from pellucid.model.interface import Start
from pellucid.tokenizers import ByteTokenizer, build

GREEDY = PRESETS["greedy"]
END = 256


class WithoutEnd(ByteTokenizer):
    """Bytes and nothing else: no token ends a text."""

    def __init__(self):
        super().__init__()
        self.vocab_size, self.end_of_text_id, self.special_tokens = 256, None, {}


class WithoutNewline(WithoutEnd):
    def encode(self, text, *, allow_special=False):
        if "\n" in text:
            raise TokenizerError("'\\n' is not in the vocabulary")
        return super().encode(text)


class Script:
    """A model that wants to say the given ids, whatever it reads; it remembers what it has read."""

    config = Config()

    def __init__(self, ids, *, vocab_size=260, max_seq_len=10_000):
        self.script, self.vocab_size, self.max_seq_len = iter(ids), vocab_size, max_seq_len
        self.read = []
        self.device, self.continues_prompt = torch.device("cpu"), True

    def new_cache(self, batch_size, max_length=None, *, dtype=None):
        self.cache_dtype = dtype
        return KVCache.allocate(
            num_layers=1,
            batch_size=batch_size,
            num_kv_heads=1,
            max_length=max_length or self.max_seq_len,
            head_dim=1,
            device="cpu",
            dtype=dtype or torch.float32,
        )

    def hidden(self, input_ids, *, cache=None):
        self.read.append(input_ids[0].tolist())
        cache.advance(input_ids.shape[1])
        return Hidden(input_ids[..., None].float())

    def head(self, states):
        return torch.nn.functional.one_hot(torch.tensor([[next(self.script)]]), self.vocab_size).float()

    def start(self, prompt, max_new_tokens, *, documents=None, dtype=None):
        length = min(self.max_seq_len, tokens_read(prompt.shape[1], self.max_seq_len) + max_new_tokens)
        return Start(self.new_cache(1, length, dtype=dtype), prompt, documents)

    def parameter_roles(self):
        return {}


def collect(stream):
    """The pieces of a stream, and its return value."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def say(ids, *, max_new_tokens=None, prompt="x", tokenizer=None, **model):
    ids = list(ids)
    sampling = GREEDY.model_copy(update={"max_new_tokens": max_new_tokens or len(ids)})
    return collect(stream_text(Script(ids, **model), tokenizer or ByteTokenizer(), prompt, sampling))


# Pieces ---------------------------------------------------------------------------------------------


def test_a_character_cut_over_ids_is_held_back_until_it_is_whole():
    pieces, result = say("aé€🙂b".encode())
    assert pieces == ["a", "é", "€", "🙂", "b"]
    assert result.text == "aé€🙂b"


def test_a_character_that_never_becomes_whole_is_one_replacement_character():
    pieces, result = say("a🙂".encode()[:-1])
    assert pieces == ["a", "\ufffd"]
    assert result.text == "a\ufffd"


def test_a_character_cut_by_the_end_of_the_text_is_replaced_too():
    pieces, _ = say(["🙂".encode()[0], END], max_new_tokens=9)
    assert pieces == ["\ufffd"]


@given(st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=12).map(str.encode))
def test_pieces_joined_are_the_whole_text(said):
    pieces, result = say(said)
    assert "".join(pieces) == result.text == said.decode(errors="replace")
    assert all(pieces)


def test_characters_cut_by_byte_pair_tokens_are_held_back_too():
    tokenizer = build("gpt2")
    said = "naïve 🙂漢字 ok"
    ids = tokenizer.encode(said).tolist()
    assert any("\ufffd" in tokenizer.decode([i]) for i in ids)
    pieces, _ = say(ids, tokenizer=tokenizer, vocab_size=tokenizer.vocab_size)
    assert "".join(pieces) == said
    assert len(pieces) < len(ids)


@given(st.text(min_size=1, max_size=12))
def test_no_piece_has_half_a_character(said):
    pieces, _ = say(said.encode())
    assert pieces == list(said)


def test_pieces_come_while_the_model_goes_on():
    model = Script(b"abc")
    stream = stream_text(model, ByteTokenizer(), "x", GREEDY)
    assert next(stream) == "a"
    assert len(model.read) == 1


def test_generate_text_hands_over_the_same_pieces():
    heard = []
    result = generate_text(Script([*"né".encode(), END]), ByteTokenizer(), "x", GREEDY, on_text=heard.append)
    assert heard == ["n", "é"]
    assert result.text == "né"
    assert generate_text(Script([*"né".encode(), END]), ByteTokenizer(), "x", GREEDY).text == "né"


# Stops and counts -----------------------------------------------------------------------------------


def test_stops_at_end_of_text_and_leaves_it_out():
    _, result = say([*b"hi", END, *b"never"], max_new_tokens=50)
    assert (result.text, result.stop_reason, result.new_tokens) == ("hi", "end of text", 3)


def test_stops_after_max_new_tokens():
    _, result = say(b"hello", max_new_tokens=3)
    assert (result.text, result.stop_reason, result.new_tokens) == ("hel", "length", 3)


def test_an_end_of_text_as_the_last_allowed_id_is_an_end_of_text():
    _, result = say([*b"hi", END], max_new_tokens=3)
    assert result.stop_reason == "end of text"


def test_a_text_that_ends_at_once_is_empty():
    pieces, result = say([END], max_new_tokens=5)
    assert (pieces, result.text, result.new_tokens) == ([], "", 1)


def test_without_an_end_of_text_id_only_length_stops():
    _, result = say(b"\x00\n!", tokenizer=WithoutEnd())
    assert (result.stop_reason, result.new_tokens) == ("length", 3)


def test_speed_counts_the_model_and_not_the_reader():
    stream = stream_text(Script(b"ab"), ByteTokenizer(), "x", GREEDY.model_copy(update={"max_new_tokens": 2}))
    next(stream)
    time.sleep(0.5)
    _, result = collect(stream)
    assert result.tokens_per_second > 2 / 0.5


# Prompts --------------------------------------------------------------------------------------------


def test_the_prompt_is_read_once_and_reported():
    model = Script(b"ab")
    result = generate_text(model, ByteTokenizer(), "né", GREEDY.model_copy(update={"max_new_tokens": 2}))
    assert model.read == [list("né".encode()), [ord("a")]]
    assert (result.prompt, result.prompt_tokens, result.prompt_tokens_read) == ("né", 3, 3)


def test_special_tokens_in_the_prompt_are_plain_text():
    model = Script(b"a")
    generate_text(model, ByteTokenizer(), "<|endoftext|>", GREEDY.model_copy(update={"max_new_tokens": 1}))
    assert model.read == [list(b"<|endoftext|>")]


@pytest.mark.parametrize(("tokenizer", "start"), [(ByteTokenizer(), END), (WithoutEnd(), ord("\n"))])
def test_an_empty_prompt_starts_from_end_of_text_or_else_a_newline(tokenizer, start):
    model = Script(b"a")
    one = GREEDY.model_copy(update={"max_new_tokens": 1})
    result = generate_text(model, tokenizer, "", one)
    assert model.read == [[start]]
    assert (result.prompt, result.text, result.prompt_tokens) == ("", "a", 1)


def test_an_empty_prompt_without_anything_to_start_from_is_a_clear_error():
    with pytest.raises(TokenizerError, match=r"the prompt is empty.*give a prompt"):
        generate_text(Script(b"a"), WithoutNewline(), "", GREEDY)


def test_a_prompt_longer_than_the_context_is_cut_to_its_newest_half_and_reported():
    model = Script(b"!!", max_seq_len=8)
    result = generate_text(
        model, ByteTokenizer(), "0123456789", GREEDY.model_copy(update={"max_new_tokens": 2})
    )
    assert model.read[0] == list(b"6789")
    assert (result.prompt_tokens, result.prompt_tokens_read, result.text) == (10, 4, "!!")


def test_a_prompt_that_fills_the_context_is_read_whole():
    model = Script(b"!!", max_seq_len=8)
    result = generate_text(
        model, ByteTokenizer(), "01234567", GREEDY.model_copy(update={"max_new_tokens": 2})
    )
    assert model.read == [list(b"01234567"), list(b"567!")]
    assert (result.prompt_tokens, result.prompt_tokens_read) == (8, 8)


def test_the_repetition_penalty_remembers_what_has_left_the_context():
    """A model of 4 positions is asked for new ids only: each of 40 ids comes once, in order of preference."""

    class Stubborn(Script):
        def head(self, states):
            return torch.linspace(100, 99, self.vocab_size)[None, None]

    never_again = SamplingConfig(temperature=0, repetition_penalty=1e6, max_new_tokens=40)
    result = generate_text(Stubborn([], max_seq_len=4), ByteTokenizer(), "\x00\x01", never_again)
    assert result.text == "".join(chr(i) for i in range(2, 42))


# Tokenizer and model --------------------------------------------------------------------------------


def test_ids_of_the_model_beyond_the_tokenizer_are_never_said():
    class Padding(Script):
        def head(self, states):
            return torch.arange(self.vocab_size).float()[None, None]

    once = GREEDY.model_copy(update={"max_new_tokens": 1})
    result = generate_text(Padding([], vocab_size=320), WithoutEnd(), "x", once)
    assert result.text == "\ufffd"  # byte 255, the largest id of the tokenizer


def test_a_tokenizer_with_more_ids_than_the_model_is_refused():
    with pytest.raises(TokenizerError, match=r"257 ids and the model only 256"):
        generate_text(Script(b"a", vocab_size=256), ByteTokenizer(), "x", GREEDY)


def test_the_cache_dtype_is_passed_on():
    model = Script(b"a")
    once = GREEDY.model_copy(update={"max_new_tokens": 1})
    generate_text(model, ByteTokenizer(), "x", once, options=Options(cache_dtype=torch.bfloat16))
    assert model.cache_dtype == torch.bfloat16


# A real model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder():
    return DecoderLM(
        DecoderConfig(vocab_size=264, d_model=16, num_layers=2, num_heads=2, max_seq_len=24, dropout=0.5)
    )


def test_the_same_seed_gives_the_same_text_and_another_seed_another(decoder):
    sampling = SamplingConfig(max_new_tokens=40, top_k=100, top_p=0.95, repetition_penalty=1.1, seed=3)
    first, again = (generate_text(decoder, ByteTokenizer(), "Once", sampling).text for _ in range(2))
    other = generate_text(decoder, ByteTokenizer(), "Once", sampling.model_copy(update={"seed": 4})).text
    assert first == again != other


def test_greedy_text_does_not_depend_on_the_seed(decoder):
    texts = {
        generate_text(
            decoder, ByteTokenizer(), "Once", SamplingConfig(temperature=0, max_new_tokens=30, seed=seed)
        ).text
        for seed in (1, 2, 3)
    }
    assert len(texts) == 1


def test_greedy_text_is_that_of_the_ids_of_model_generate():
    model = DecoderLM(DecoderConfig(vocab_size=256, d_model=16, num_layers=2, num_heads=2, max_seq_len=24))
    settings = {"temperature": 0.0, "max_new_tokens": 30}
    ids = model.generate(torch.tensor(list(b"Once")), **settings)[4:]
    text = generate_text(model, WithoutEnd(), "Once", SamplingConfig(**settings)).text
    assert text == bytes(ids.tolist()).decode(errors="replace")


def test_dropout_is_off_while_generating_and_back_on_after(decoder):
    decoder.train()
    stream = stream_text(decoder, ByteTokenizer(), "Once", SamplingConfig(max_new_tokens=200))
    next(stream)
    assert not decoder.training
    stream.close()
    assert decoder.training
    decoder.eval()
    generate_text(decoder, ByteTokenizer(), "Once", SamplingConfig(max_new_tokens=2))
    assert not decoder.training
    decoder.train()
