"""One prompt in many ways: the texts are those of generation, and the figures those of the texts."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import ConfigError, TokenizerError
from pellucid.generate.comparison import choices, compare_sampling, is_drawn
from pellucid.generate.diversity import distinct, overlap, repetition
from pellucid.generate.likelihood import likelihood
from pellucid.generate.samples import Sample, _spans, figures
from pellucid.generate.sampling import PRESETS, SamplingConfig
from pellucid.generate.strategies import STRATEGIES
from pellucid.generate.text import generate_text
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM
from pellucid.tokenizers import ByteTokenizer

SIZES = {"vocab_size": 264, "d_model": 16, "num_heads": 2, "max_seq_len": 24}
NAMED = {
    "greedy": SamplingConfig(temperature=0),
    "top_k": SamplingConfig(top_k=3),
    "mine": SamplingConfig(temperature=0.5, top_p=0.9, seed=77, max_new_tokens=7),
}


@pytest.fixture(scope="module")
def decoder():
    """Weights eight times as large as a new model's: not all ids are equally likely."""
    model = DecoderLM(DecoderConfig(**SIZES, num_layers=1))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture(scope="module")
def compared(decoder):
    return compare_sampling(decoder, ByteTokenizer(), "Once", NAMED, seeds=(3, 5), max_new_tokens=30)


def sample(ids=(), **settings):
    given = {"surprise": None, "entropy": None, "repetition": None, "repeated": (), "stop_reason": "length"}
    return Sample(**{"seed": 0, "text": "", "ids": tuple(ids), **given, **settings})


# The texts ------------------------------------------------------------------------------------------


def test_every_text_is_what_generation_writes_with_these_settings(decoder, compared):
    assert [one.name for one in compared.strategies] == list(NAMED)
    for one in compared.strategies:
        assert [sample.seed for sample in one.samples] == [3, 5]
        for each in one.samples:
            settings = {"seed": each.seed, "max_new_tokens": 30}
            sampling = NAMED[one.name].model_copy(update=settings)
            written = generate_text(decoder, ByteTokenizer(), "Once", sampling)
            assert (each.text, each.stop_reason) == (written.text, written.stop_reason)


def test_what_no_seed_can_change_is_written_once(decoder):
    told = []
    found = compare_sampling(
        decoder,
        ByteTokenizer(),
        "Once",
        NAMED,
        seeds=(3, 5, 8),
        max_new_tokens=4,
        on_sample=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 1 + 3 + 3) for done in range(1, 8)]
    greedy, top_k, _ = found.strategies
    assert (greedy.is_drawn, top_k.is_drawn) == (False, True)
    assert [each.seed for each in greedy.samples] == [3, 5, 8]
    assert len({each.text for each in greedy.samples}) == 1
    assert greedy.figures.overlap == 1
    assert not is_drawn(SamplingConfig(temperature=0))


def test_it_is_the_same_each_time(decoder, compared):
    again = compare_sampling(decoder, ByteTokenizer(), "Once", NAMED, seeds=(3, 5), max_new_tokens=30)
    assert again == compared


def test_the_settings_are_told_without_seed_and_length(compared):
    assert [dict(one.settings) for one in compared.strategies] == [
        {"temperature": 0.0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 0.5, "top_p": 0.9},
    ]


def test_it_says_how_much_of_the_prompt_was_read(decoder, compared):
    assert (compared.prompt_tokens, compared.prompt_tokens_read) == (4, 4)
    long = compare_sampling(decoder, ByteTokenizer(), "x" * 40, {"g": NAMED["greedy"]}, max_new_tokens=2)
    assert (long.prompt_tokens, long.prompt_tokens_read) == (40, 12)
    empty = compare_sampling(decoder, ByteTokenizer(), "", {"g": NAMED["greedy"]}, max_new_tokens=2)
    assert (empty.prompt, empty.prompt_tokens) == ("", 1)


def test_an_encoder_decoder_answers():
    model = EncoderDecoderLM(EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1))
    found = compare_sampling(model, ByteTokenizer(), "a<extra_id_0>b", NAMED, max_new_tokens=5)
    assert not found.continues_prompt
    assert all(one.samples[0].surprise > 0 for one in found.strategies if one.samples[0].ids)


def test_by_default_everything_is_compared():
    assert choices().keys() == STRATEGIES.keys() | PRESETS.keys()
    assert list(choices(["top_p"], ["precise"])) == ["top_p", "precise"]
    assert choices(["top_p"])["top_p"] == SamplingConfig(top_p=0.95)
    assert choices([], ["precise"]) == {"precise": PRESETS["precise"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [((["topp"],), "did you mean 'top_p'"), (([], ["precice"]), "did you mean 'precise'")],
)
def test_an_unknown_name_is_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        choices(*names)


def test_what_cannot_be_compared_is_refused(decoder):
    tokenizer = ByteTokenizer()
    with pytest.raises(ValueError, match="at least one strategy and one seed"):
        compare_sampling(decoder, tokenizer, "Once", {})
    with pytest.raises(ValueError, match="at least one strategy and one seed"):
        compare_sampling(decoder, tokenizer, "Once", NAMED, seeds=())
    with pytest.raises(ConfigError, match="max_new_tokens: must be at least 1"):
        compare_sampling(decoder, tokenizer, "Once", NAMED, max_new_tokens=0)
    with pytest.raises(TokenizerError, match="surrogate"):
        compare_sampling(decoder, tokenizer, "\udce9", NAMED)


def test_it_becomes_one_json_object(compared):
    values = json.loads(json.dumps(compared.to_dict()))
    assert values["strategies"][1]["samples"][0]["text"] == compared.strategies[1].samples[0].text
    assert values["strategies"][0]["figures"]["overlap"] == 1
    assert values["seeds"] == [3, 5]


# The figures ----------------------------------------------------------------------------------------


def test_figures_are_those_of_all_texts_together(compared):
    for one in compared.strategies:
        texts = [each.ids for each in one.samples]
        assert one.figures.distinct_1 == distinct(texts, 1)
        assert one.figures.distinct_2 == distinct(texts, 2)
        assert one.figures.distinct_3 == distinct(texts, 3)
        assert one.figures.repetition == repetition(texts, 4)
        assert one.figures.overlap == overlap(texts, 2)
        assert one.figures.tokens == (len(texts[0]) + len(texts[1])) / 2


def test_perplexity_and_entropy_are_over_all_ids(decoder, compared):
    for one in compared.strategies:
        found = [likelihood(decoder, list(b"Once"), each.ids, vocab_size=257) for each in one.samples]
        surprise = [value for each in found for value in each.surprise]
        entropy = [value for each in found for value in each.entropy]
        assert one.figures.perplexity == pytest.approx(math.exp(sum(surprise) / len(surprise)))
        assert one.figures.entropy == pytest.approx(sum(entropy) / len(entropy))


def test_long_texts_count_for_more():
    short, long = sample([1], surprise=3.0, entropy=1.0), sample([1, 2, 3], surprise=1.0, entropy=2.0)
    found = figures([short, long])
    assert found.perplexity == pytest.approx(math.exp(6 / 4))
    assert found.entropy == pytest.approx(7 / 4)
    assert short.perplexity == pytest.approx(math.exp(3))


def test_of_empty_texts_only_their_ends_are_known():
    found = figures([sample(stop_reason="end of text"), sample()])
    assert (found.ended, found.tokens) == (0.5, 0)
    assert found.distinct_1 is found.repetition is found.overlap is found.perplexity is found.entropy is None
    assert sample().perplexity is None


def test_a_perplexity_beyond_all_numbers_is_infinite():
    assert sample([1], surprise=1e4).perplexity == math.inf


# Where a text repeats itself ------------------------------------------------------------------------


def test_repeated_ids_become_characters():
    ids = list("aéb→c".encode())
    marks = [False, True, True, False, True, True, False, True]  # é whole, two thirds of → and c
    assert _spans(ByteTokenizer(), ids, marks) == ((1, 2), (4, 5))
    marks[6] = True  # → is complete with its last byte
    assert _spans(ByteTokenizer(), ids, marks) == ((1, 2), (3, 5))


def test_the_marked_part_of_a_loop_is_all_but_its_start():
    found = compare_sampling(
        Loop(b"abcde"), ByteTokenizer(), "x", {"greedy": NAMED["greedy"]}, max_new_tokens=15
    )
    (text,) = {each.text for each in found.strategies[0].samples}
    assert text == "abcde" * 3
    assert found.strategies[0].samples[0].repeated == ((5, 15),)
    assert found.strategies[0].samples[0].repetition == pytest.approx((12 - 5) / 12)


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), max_size=30))
def test_spans_lie_apart_inside_the_text(pairs):
    ids, marks = [number for number, _ in pairs], [mark for _, mark in pairs]
    text = bytes(ids).decode("utf-8", "replace")
    spans = _spans(ByteTokenizer(), ids, marks)
    borders = [border for span in spans for border in span]
    assert borders == sorted(set(borders))
    assert all(0 <= border <= len(text) for border in borders)
    assert _spans(ByteTokenizer(), ids, [True] * len(ids)) == (((0, len(text)),) if text else ())
    assert _spans(ByteTokenizer(), ids, [False] * len(ids)) == ()


class Loop(DecoderLM):
    """Says the same bytes again and again, by the id before."""

    def __init__(self, data):
        super().__init__(DecoderConfig(**SIZES, num_layers=1))
        self.following = {data[place - 1]: byte for place, byte in enumerate(data)}
        self.first = data[0]

    def hidden(self, input_ids, **settings):
        self.read = input_ids
        return super().hidden(input_ids, **settings)

    def head(self, states):
        newest = self.read[:, -states.shape[1] :]
        logits = torch.zeros(*newest.shape, self.vocab_size)
        for row, ids in enumerate(newest.tolist()):
            for place, number in enumerate(ids):
                logits[row, place, self.following.get(number, self.first)] = 5.0
        return logits
