"""Many prompts to many texts: each as `generate_text` writes it, drawn, searched for by beams, or with drafts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

from pellucid import generate
from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.generate import (
    BeamConfig,
    DraftModel,
    Generation,
    NgramLookup,
    Options,
    Prefixes,
    SamplingConfig,
    generate_text,
    generate_texts,
    stream_text,
)
from pellucid.generate.beam import beam_search
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
END = 256
PROMPTS = ["To be, or not to be", "é", "", "Once upon a time there was", "To be, or"]
DRAWN = SamplingConfig(max_new_tokens=12, temperature=1.5, seed=3)
GREEDY = SamplingConfig(max_new_tokens=12, temperature=0)


def build(family: str = "decoder", *, context: int = 128) -> Any:
    """Weights drawn wide, so that greedy text is not one id repeated."""
    sizes = {
        "vocab_size": 264,
        "d_model": 16,
        "num_heads": 2,
        "max_seq_len": context,
        "tie_embeddings": False,
    }
    if family == "decoder":
        model: Any = from_tree(DecoderConfig, {**sizes, "num_layers": 2}).build()
    else:
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "start_id": END}
        model = from_tree(EncoderDecoderConfig, {**sizes, **layers}).build()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.double().eval()


@pytest.fixture(scope="module", params=["decoder", "encoder_decoder"])
def model(request) -> Any:
    return build(request.param)


def facts(results: list[Generation]) -> list[tuple[Any, ...]]:
    """All but the speed."""
    return [
        (one.prompt, one.text, one.ids, one.prompt_tokens, one.stop_reason, one.result) for one in results
    ]


# Batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_texts_are_those_of_each_prompt_alone_in_order(model: Any, batch_size: int) -> None:
    expected = [generate_text(model, TOKENIZER, prompt, DRAWN) for prompt in PROMPTS]
    found = list(generate_texts(model, TOKENIZER, PROMPTS, DRAWN, batch_size=batch_size))
    assert [facts(results) for results in found] == [facts([one]) for one in expected]
    assert len({one.text for one in expected}) == len(PROMPTS)


def test_results_are_drawn_by_seeds_that_follow_one_another(model: Any) -> None:
    found = list(generate_texts(model, TOKENIZER, PROMPTS[:2], DRAWN, num_results=3))
    for prompt, results in zip(PROMPTS, found, strict=False):
        for number, result in enumerate(results):
            seed = DRAWN.model_copy(update={"seed": DRAWN.seed + number})
            assert result.result == number
            assert result.ids == generate_text(model, TOKENIZER, prompt, seed).ids


def test_batches_are_written_when_they_are_asked_for() -> None:
    model = build()
    texts = generate_texts(model, TOKENIZER, PROMPTS[:2], GREEDY, batch_size=1)
    next(texts)
    model.hidden = None
    with pytest.raises(TypeError):
        next(texts)


def test_no_prompts_give_no_texts() -> None:
    assert list(generate_texts(build(), TOKENIZER, [])) == []


def test_a_store_of_what_was_read_serves_one_text_after_another() -> None:
    model, store = build(), Prefixes(10**7)
    text, read, hidden = "A conversation that goes on.", [], model.hidden
    for _ in range(3):
        expected = generate_text(model, TOKENIZER, text, GREEDY)
        read.clear()
        model.hidden = lambda ids, **given: read.append(ids.numel()) or hidden(ids, **given)
        result = generate_text(model, TOKENIZER, text, GREEDY, options=Options(prefixes=store))
        del model.hidden
        assert facts([result]) == facts([expected])
        text += " And so"
    assert read[0] == len(" And so")


@pytest.mark.parametrize("num_results", [1, 3])
def test_the_speed_is_the_batchs(monkeypatch: pytest.MonkeyPatch, num_results: int) -> None:
    """A clock that moves a second in each call of the model: 12 steps for all rows."""
    model, now = build(), [0.0]
    hidden = model.hidden

    def slow(*given: Any, **inputs: Any) -> Any:
        now[0] += 1
        return hidden(*given, **inputs)

    monkeypatch.setattr("pellucid.generate.text.perf_counter", lambda: now[0])
    model.hidden = slow
    prompts = ["aa", "bb"]
    results = list(generate_texts(model, TOKENIZER, prompts, GREEDY, num_results=num_results))
    speeds = {one.tokens_per_second for row in results for one in row}
    assert speeds == {2 * num_results * 12 / 12}


# Settings that say what must or may come -------------------------------------------------------------------


def test_forced_ids_come_first_and_banned_ones_never(model: Any) -> None:
    plain = list(generate_texts(model, TOKENIZER, PROMPTS, DRAWN))
    common = [one.ids[2] for (one,) in plain]
    sampling = from_tree(
        SamplingConfig,
        {**DRAWN.model_dump(), "forced": list(b"Hm"), "banned": [*common], "max_new_tokens": 12},
    )
    for (one,) in generate_texts(model, TOKENIZER, PROMPTS, sampling):
        assert one.text.startswith("Hm")
        assert not set(common) & set(one.ids)


def test_a_text_may_not_end_before_its_least_length(model: Any) -> None:
    wish = {**DRAWN.model_dump(), "logit_bias": {END: 30.0}}
    for least in (0, 5):
        sampling = from_tree(SamplingConfig, {**wish, "min_new_tokens": least})
        for (one,) in generate_texts(model, TOKENIZER, PROMPTS, sampling):
            assert one.new_tokens == least + 1
            assert one.stop_reason == "end of text"


def test_a_forced_end_is_the_last_id(model: Any) -> None:
    sampling = DRAWN.model_copy(update={"force_end": True})
    for (one,) in generate_texts(model, TOKENIZER, PROMPTS, sampling):
        assert one.ids[-1] == END
        assert one.stop_reason == "end of text"


# Stops ---------------------------------------------------------------------------------------------------


def said(model: Any, text: str, sampling: SamplingConfig = GREEDY, **given: Any) -> Generation:
    """What is generated where the ids of this text are forced."""
    ids = tuple(TOKENIZER.encode(text).tolist())
    forced = sampling.model_copy(update={"forced": ids, **given.pop("settings", {})})
    return generate_text(model, TOKENIZER, "x", forced, **given)


DRAFTS = {"plain": lambda model: None, "lookup": lambda model: NgramLookup(), "model": DraftModel}


@pytest.mark.parametrize("how", DRAFTS)
@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (("c",), "ab"),
        (("cd", "zz"), "ab"),
        (("abcdef",), ""),
        (("f", "de"), "abc"),
        (("ef", "def"), "abc"),
        (("🙂",), "abcdef"),
    ],
)
def test_a_stop_text_ends_a_text_wherever_a_run_of_ids_ends(
    how: str, stops: tuple[str, ...], text: str
) -> None:
    model = build()
    settings = {"stop": stops, "max_new_tokens": 12}
    result = said(model, "abcdef🙂", settings=settings, options=Options(proposer=DRAFTS[how](model)))
    assert (result.text, result.stop_reason) == (text, "stop")
    shortest = next(
        n for n in range(13) if any(stop in "abcdef🙂".encode()[:n].decode(errors="ignore") for stop in stops)
    )
    assert bytes(result.ids) == "abcdef🙂".encode()[:shortest]


@pytest.mark.parametrize("how", DRAFTS)
def test_a_stop_text_is_the_reason_though_the_last_id_completes_it(how: str) -> None:
    model = build()
    options = Options(proposer=DRAFTS[how](model))
    result = said(model, "abc", settings={"stop": ("bc",), "max_new_tokens": 3}, options=options)
    assert (result.text, result.stop_reason) == ("a", "stop")


def test_a_stop_text_is_the_reason_though_the_same_run_holds_the_end_of_text() -> None:
    """The same model drafts all of it, so that one run has both."""
    model, ids = build(), (*b"abc", END)
    sampling = SamplingConfig(temperature=0, forced=ids, stop=("b",))
    result = generate_text(model, TOKENIZER, "x", sampling, options=Options(proposer=DraftModel(model)))
    assert (result.text, result.stop_reason, result.ids) == ("a", "stop", tuple(b"ab"))


def test_rows_of_a_batch_end_at_stop_texts_each_for_itself(model: Any) -> None:
    plain = [one for row in generate_texts(model, TOKENIZER, PROMPTS, DRAWN, num_results=2) for one in row]
    stops = tuple(one.text[3] for one in plain[:2])
    found = generate_texts(model, TOKENIZER, PROMPTS, DRAWN.model_copy(update={"stop": stops}), num_results=2)
    ended = [one for row in found for one in row]
    assert [one.stop_reason for one in ended].count("stop") >= 2
    for whole, one in zip(plain, ended, strict=True):
        places = [whole.text.find(stop) for stop in stops if stop in whole.text]
        assert one.text == whole.text[: min(places, default=len(whole.text))]
        assert one.ids == whole.ids[: one.new_tokens]


def test_a_text_may_stop_at_the_end_of_the_context() -> None:
    model = build(context=8)
    result = generate_text(model, TOKENIZER, "abcde", GREEDY, options=Options(when_full="stop"))
    assert (result.stop_reason, result.new_tokens) == ("context", 4)
    rolled = generate_text(model, TOKENIZER, "abcde", GREEDY)
    assert (rolled.stop_reason, rolled.ids[:4]) == ("length", result.ids)


# Log-probabilities and drafts ------------------------------------------------------------------------------


def test_log_probabilities_belong_to_the_ids(model: Any) -> None:
    for results in generate_texts(
        model, TOKENIZER, PROMPTS, DRAWN, num_results=2, options=Options(alternatives=1)
    ):
        for one in results:
            assert one.log_probabilities is not None
            assert [log.id for log in one.log_probabilities] == list(one.ids)
            assert all(log.log_probability <= log.alternatives[0][1] <= 0 for log in one.log_probabilities)


@pytest.mark.parametrize("proposer", [NgramLookup(), DraftModel(build())], ids=["lookup", "model"])
def test_drafts_change_no_greedy_text_and_are_counted(model: Any, proposer: Any) -> None:
    for prompt in PROMPTS:
        plain = generate_text(model, TOKENIZER, prompt, GREEDY)
        drafted = generate_text(model, TOKENIZER, prompt, GREEDY, options=Options(proposer=proposer))
        assert facts([drafted]) == facts([plain])
        assert (plain.drafted, plain.accepted) == (0, 0)
        assert 0 <= drafted.accepted <= drafted.drafted
        assert drafted.drafted > 0 or isinstance(proposer, NgramLookup)


# Beams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8])
def test_beams_find_what_the_search_of_ids_finds(model: Any, batch_size: int) -> None:
    beams = BeamConfig(num_beams=3, num_results=2)
    sampling = DRAWN.model_copy(update={"max_new_tokens": 6})
    found = list(generate_texts(model, TOKENIZER, PROMPTS, sampling, beams=beams, batch_size=batch_size))
    for prompt, results in zip(PROMPTS, found, strict=True):
        ids = TOKENIZER.encode(prompt).tolist() or [END]
        steps = GREEDY.steps(TOKENIZER.vocab_size, END)
        (expected,) = beam_search(model, torch.tensor([ids]), 6, beams, end_id=END, steps=steps)
        assert [list(one.ids) for one in results] == [beam.ids.tolist() for beam in expected]
        assert [one.score for one in results] == pytest.approx([beam.score for beam in expected])
        assert [one.result for one in results] == [0, 1]
        for one in results:
            assert one.prompt == prompt
            assert one.text == TOKENIZER.decode([i for i in one.ids if i != END])
            assert one.stop_reason == ("end of text" if one.ids[-1] == END else "length")


def test_one_beam_is_greedy_and_penalties_count(model: Any) -> None:
    sampling = GREEDY.model_copy(update={"no_repeat_ngram_size": 1})
    for (one,), prompt in zip(
        generate_texts(model, TOKENIZER, PROMPTS, sampling, beams=BeamConfig(num_beams=1)),
        PROMPTS,
        strict=True,
    ):
        assert one.ids == generate_text(model, TOKENIZER, prompt, sampling).ids
        assert len(set(one.ids)) == len(one.ids)


def test_a_beams_text_is_cut_at_a_stop_text() -> None:
    model = build()
    ((plain,),) = generate_texts(model, TOKENIZER, ["abc"], GREEDY, beams=BeamConfig(num_beams=2))
    assert len(plain.text) > 3
    sampling = GREEDY.model_copy(update={"stop": (plain.text[2],)})
    ((cut,),) = generate_texts(model, TOKENIZER, ["abc"], sampling, beams=BeamConfig(num_beams=2))
    assert cut.text == plain.text[: plain.text.index(plain.text[2])]
    assert cut.stop_reason == "stop"
    assert plain.ids[: len(cut.ids)] == cut.ids


# Names ---------------------------------------------------------------------------------------------------


def test_every_public_name_is_there() -> None:
    assert sorted(generate.__all__) == sorted(generate._HOMES)
    for name in generate.__all__:
        assert getattr(generate, name) is getattr(
            import_module(f"pellucid.generate.{generate._HOMES[name]}"), name
        )
    with pytest.raises(AttributeError, match="has no attribute 'generate_txt'"):
        _ = generate.generate_txt


# What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num_results": 2},
            r"num_results=2 counts texts that are drawn; of beams, set BeamConfig\(num_results",
        ),
        ({"options": Options(alternatives=0)}, "beams go with neither drafts .* nor log-probabilities"),
        ({"options": Options(proposer=NgramLookup())}, "beams go with neither drafts"),
    ],
)
def test_what_beams_have_not_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(generate_texts(build(), TOKENIZER, ["a"], GREEDY, beams=BeamConfig(), **given))


def test_beams_that_would_pass_the_end_of_the_context_are_refused_where_it_may_not_roll() -> None:
    model, options = build(context=8), Options(when_full="stop")

    def search(new: int) -> list[Any]:
        sampling = GREEDY.model_copy(update={"max_new_tokens": new})
        return list(
            generate_texts(model, TOKENIZER, ["a", "abcde"], sampling, beams=BeamConfig(), options=options)
        )

    assert len(search(4)) == 2
    with pytest.raises(
        ConfigError, match=r"beams do not stop at the end of the context \(8 tokens\), which 5"
    ):
        search(5)


@pytest.mark.parametrize("beams", [None, BeamConfig()], ids=["drawn", "beams"])
def test_all_tokens_banned_is_one_clear_message(model: Any, beams: BeamConfig | None) -> None:
    sampling = GREEDY.model_copy(update={"banned": SamplingConfig(banned=range(257)).banned})
    with pytest.raises(ConfigError, match=r"leaves? no id to choose"):
        list(generate_texts(model, TOKENIZER, ["a"], sampling, beams=beams))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_impossible_batches_are_refused(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size must be at least 1, not {batch_size}"):
        list(generate_texts(build(), TOKENIZER, ["a"], batch_size=batch_size))


def test_a_prompt_longer_than_the_context_is_refused_where_that_may_not_roll() -> None:
    stream = stream_text(build(context=8), TOKENIZER, "123456789", options=Options(when_full="stop"))
    with pytest.raises(ConfigError, match="the prompt has 9 tokens and the context only 8; shorten it"):
        next(stream)
