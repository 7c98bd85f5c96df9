from __future__ import annotations

import math
from itertools import compress
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree
from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.beam import Beam, BeamConfig, beam_search
from pellucid.generate.written import Written
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM, Hidden
from pellucid.model.decoding import pad_left

V = 13
END = 5


def wide(model: Any) -> Any:
    """Weights drawn wide, so that texts differ."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6, generator=generator)
    return model.double().eval()


def decoder(vocab_size: int = V, context: int = 32, **fields: Any) -> DecoderLM:
    config = DecoderConfig(
        vocab_size=vocab_size, d_model=16, num_layers=2, num_heads=2, max_seq_len=context, **fields
    )
    return wide(DecoderLM(config))


def encoder_decoder(vocab_size: int = V, context: int = 32) -> EncoderDecoderLM:
    config = EncoderDecoderConfig(
        vocab_size=vocab_size,
        d_model=16,
        num_encoder_layers=1,
        num_decoder_layers=2,
        num_heads=2,
        max_seq_len=context,
        tie_embeddings=False,
    )
    return wide(EncoderDecoderLM(config))


FAMILIES = {"decoder": decoder, "encoder-decoder": encoder_decoder}
families = pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)


def draw_ids(*shape: int, seed: int = 0, vocab_size: int = V) -> Tensor:
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def found(results: list[Beam]) -> list[tuple[list[int], float]]:
    return [(result.ids.tolist(), pytest.approx(result.score, abs=1e-9)) for result in results]


@torch.no_grad()
def next_log_probs(model: Any, prompt: list[int], new: list[int]) -> Tensor:
    """Without a cache. Text that does not fit is cut to its newest half context, as each id comes."""
    if not model.continues_prompt:
        logits = model(torch.tensor([prompt]), torch.tensor([[model.start_id, *new]]))
        return logits[0, -1].log_softmax(dim=-1)
    context, read = model.max_seq_len, list(prompt)
    for count in range(len(new) + 1):
        read += new[count - 1 : count]
        if len(read) > context:
            read = read[-max(1, context // 2) :]
    return model(torch.tensor([read]))[0, -1].log_softmax(dim=-1)


def every_text(
    model: Any, prompt: list[int], max_new_tokens: int, length_penalty: float
) -> list[tuple[list[int], float]]:
    """All that can be written, best first: whatever ends, and whatever is cut."""
    texts: list[tuple[list[int], float]] = []
    beginnings: list[tuple[list[int], float]] = [([], 0.0)]
    for length in range(1, max_new_tokens + 1):
        longer = [
            ([*ids, new], total + log_prob)
            for ids, total in beginnings
            for new, log_prob in enumerate(next_log_probs(model, prompt, ids).tolist())
        ]
        is_text = [length == max_new_tokens or ids[-1] == END for ids, _ in longer]
        texts += [(ids, total / length**length_penalty) for ids, total in compress(longer, is_text)]
        beginnings = [beginning for beginning, ends in zip(longer, is_text, strict=True) if not ends]
    return sorted(texts, key=lambda text: -text[1])


def slow_search(
    model: Any, prompt: list[int], max_new_tokens: int, num_beams: int
) -> list[tuple[list[int], float]]:
    """Beam search without an end, a cache or a tensor of beams."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(max_new_tokens):
        longer = [
            ([*ids, new], total + log_prob)
            for ids, total in beams
            for new, log_prob in enumerate(next_log_probs(model, prompt, ids).tolist())
        ]
        beams = sorted(longer, key=lambda beam: -beam[1])[:num_beams]
    return [(ids, total / max_new_tokens) for ids, total in beams]


# What is found --------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
def test_as_many_beams_as_beginnings_find_every_text_in_order(build: Any, length_penalty: float) -> None:
    model, prompt = build(vocab_size=6), draw_ids(1, 4, vocab_size=6)
    expected = every_text(model, prompt[0].tolist(), 3, length_penalty)
    assert len(expected) == 1 + 5 * 1 + 5 * 5 * 6
    beams = BeamConfig(num_beams=200, num_results=200, length_penalty=length_penalty)
    assert found(beam_search(model, prompt, 3, beams, end_id=END)[0]) == expected


@families
@pytest.mark.parametrize("num_beams", [2, 5])
def test_equals_a_search_that_keeps_lists(build: Any, num_beams: int) -> None:
    model, prompt = build(), draw_ids(1, 4)
    results = beam_search(model, prompt, 9, BeamConfig(num_beams=num_beams, num_results=num_beams))[0]
    assert found(results) == slow_search(model, prompt[0].tolist(), 9, num_beams)


@pytest.mark.parametrize("context", [1, 2, 7])
@pytest.mark.parametrize("prompt_length", [1, 6, 7, 8, 20])
def test_text_longer_than_the_context_is_cut_to_its_newest_half(context: int, prompt_length: int) -> None:
    model, prompt = decoder(context=context), draw_ids(1, prompt_length)
    results = beam_search(model, prompt, 17, BeamConfig(num_beams=3, num_results=3))[0]
    assert found(results) == slow_search(model, prompt[0].tolist(), 17, 3)


@families
@pytest.mark.parametrize("context", [6, 32])
def test_one_beam_is_greedy(build: Any, context: int) -> None:
    model, prompts = build(context=context), [draw_ids(length, seed=length) for length in (5, 2, 3)]
    padded, documents = pad_left(prompts)
    results = beam_search(model, padded, 12, BeamConfig(num_beams=1), documents=documents)
    greedy = model.generate(prompts, 12)
    for (result,), prompt, text in zip(results, prompts, greedy, strict=True):
        new = text[len(prompt) :] if model.continues_prompt else text
        assert torch.equal(result.ids, new)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize(
    "model",
    [decoder(), decoder(context=8), decoder(context=8, prompt_mask="prefix"), encoder_decoder()],
    ids=["decoder", "short context", "prefix", "encoder-decoder"],
)
def test_a_prompt_finds_the_same_alone_and_in_a_batch(model: Any, early_stopping: Any) -> None:
    """Their searches end at different steps, and those that go on close ranks."""
    prompts = [draw_ids(length, seed=seed) for seed, length in enumerate((6, 1, 3, 6, 12))]
    beams = BeamConfig(num_beams=3, num_results=3, early_stopping=early_stopping)
    padded, documents = pad_left(prompts)

    def end_after_some(scores: Tensor, written: Written) -> Tensor:
        scores = scores.clone()
        scores[:, END] = -0.3 - 1.5 * (written.ids[:, -1] % 4)
        return scores

    how = {"end_id": END, "steps": [end_after_some]}
    together = beam_search(model, padded, 14, beams, documents=documents, **how)
    alone = [beam_search(model, prompt[None], 14, beams, **how)[0] for prompt in prompts]
    assert [found(results) for results in together] == [
        [(result.ids.tolist(), result.score) for result in results] for results in alone
    ]
    assert len({len(result.ids) for results in alone for result in results}) > 2


def test_a_better_text_than_greedy_is_found() -> None:
    model, prompt = decoder(), draw_ids(1, 4, seed=3)
    one, four = (beam_search(model, prompt, 9, BeamConfig(num_beams=beams))[0][0] for beams in (1, 4))
    assert four.score > one.score + 0.01


@pytest.mark.parametrize("early_stopping", [False, "never"])
def test_below_0_the_penalty_makes_a_long_text_the_worse_so_that_the_best_to_hope_for_is_to_end_now(
    early_stopping: Any,
) -> None:
    """By two ids both results are there, -3 and -2.1 · 2; the best beam counts -0.3 · 2 and not -0.3 · 20."""
    table = {0: {1: -0.1, END: -3.0, 2: -4.0}, 1: {1: -0.2, END: -2.0}, 2: {END: -0.1}}

    def given(scores: Tensor, written: Written) -> Tensor:
        fixed = torch.full_like(scores, -50.0)
        for new, score in table[int(written.num_new[0])].items():
            fixed[:, new] = score
        return fixed

    beams = BeamConfig(num_beams=2, num_results=2, length_penalty=-1.0, early_stopping=early_stopping)
    results = beam_search(decoder(), draw_ids(1, 4), 20, beams, end_id=END, steps=[given])[0]
    assert [result.ids.tolist() for result in results] == [[1, 1, END], [END]]
    assert [result.score for result in results] == pytest.approx([-0.4 * 3, -3.0])


def test_fewer_results_where_fewer_texts_are_possible() -> None:
    model, prompt = decoder(vocab_size=3), draw_ids(2, 4, vocab_size=3)
    beams = BeamConfig(num_beams=7, num_results=7)
    for row, results in zip(prompt.tolist(), beam_search(model, prompt, 1, beams), strict=True):
        assert found(results) == slow_search(model, row, 1, 7)
        assert len(results) == 3


# How it goes ----------------------------------------------------------------------------------------


def test_what_is_read_and_by_how_many_rows() -> None:
    """The prompts once, then a row for every beam; a prompt that is done is dropped."""

    class Recording(DecoderLM):
        def hidden(self, input_ids: Tensor, **given: Any) -> Hidden:
            shapes.append(tuple(input_ids.shape))
            return super().hidden(input_ids, **given)

    def end_first_prompt(scores: Tensor, written: Written) -> Tensor:
        """Its beams can only end, once they have two ids; the other prompt's never do."""
        is_first = written.ids[:, 0] == 1
        ends = is_first & (written.num_new == 2)
        scores = torch.where(ends[:, None], -torch.inf, scores)
        scores[:, END] = torch.where(ends, 0.0, -torch.inf)
        return scores

    shapes: list[tuple[int, ...]] = []
    model = wide(Recording(decoder().config))
    prompt = torch.tensor([[1, 2, 3, 4], [2, 2, 3, 4]])
    results = beam_search(model, prompt, 5, BeamConfig(num_beams=3), end_id=END, steps=[end_first_prompt])
    assert shapes == [(2, 4), (6, 1), (6, 1), (3, 1), (3, 1)]
    assert [len(beams[0].ids) for beams in results] == [3, 5]


def test_steps_follow_one_another_and_banned_ids_never_come() -> None:
    """Beams that have nothing to go on with, next to others that have, leave no result."""

    def only_even(scores: Tensor, written: Written) -> Tensor:
        scores = scores.clone()
        scores[:, 1::2] = -torch.inf
        return scores

    def nothing_after_4(scores: Tensor, written: Written) -> Tensor:
        return scores.masked_fill((written.ids[:, -1:] == 4) & (written.num_new > 0)[:, None], -torch.inf)

    model, prompt = decoder(), draw_ids(2, 4)
    beams = BeamConfig(num_beams=12, num_results=12)
    for results in beam_search(model, prompt, 3, beams, steps=[only_even, nothing_after_4]):
        assert len(results) == 12
        for result in results:
            assert math.isfinite(result.score)
            assert all(new % 2 == 0 for new in result.ids.tolist())
            assert 4 not in result.ids[:-1].tolist()


def test_dropout_is_off_and_comes_back_on() -> None:
    model = decoder(dropout=0.5)
    model.train()
    first, second = (beam_search(model, draw_ids(1, 4), 8)[0][0] for _ in range(2))
    assert model.training
    assert torch.equal(first.ids, second.ids)
    assert first.score == second.score


def test_half_precision_is_searched_in_float32() -> None:
    model, prompt = decoder().bfloat16(), draw_ids(2, 4)
    for row, (result,) in zip(prompt.tolist(), beam_search(model, prompt, 4), strict=True):
        ids = result.ids.tolist()
        near = sum(float(next_log_probs(model.double(), row, ids[:at])[ids[at]]) for at in range(4)) / 4
        model.bfloat16()
        assert result.score == pytest.approx(near, rel=0.05)
        assert result.score != float(torch.tensor(result.score).bfloat16())


# Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams: must be at least 1, not 0"),
        ({"num_results": 0}, "num_results: must be at least 1, not 0"),
        ({"num_beams": 2, "num_results": 3}, "3 results cannot come of 2 beams; num_results must be at most"),
        ({"length_penalty": 11}, "length_penalty: must be at least -10 and at most 10, not 11"),
        ({"length_penalty": math.nan}, "length_penalty: must be"),
        ({"early_stopping": "nevr"}, "early_stopping"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(BeamConfig, settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_early_stopping_is_one_of_three(early_stopping: Any) -> None:
    assert from_tree(BeamConfig, {"early_stopping": early_stopping}).early_stopping is early_stopping


@pytest.mark.parametrize("max_new_tokens", [0, -1])
def test_no_new_ids_are_refused(max_new_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"max_new_tokens must be at least 1, not {max_new_tokens}"):
        beam_search(decoder(), draw_ids(1, 4), max_new_tokens)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        beam_search(decoder(), draw_ids(1, 0), 3)


@pytest.mark.parametrize("after", [0, 2])
def test_steps_that_ban_every_id_are_refused(after: int) -> None:
    def ban(scores: Tensor, written: Written) -> Tensor:
        return torch.full_like(scores, -torch.inf) if int(written.num_new[0]) == after else scores

    with pytest.raises(ConfigError, match=f"the steps leave no id to choose after {after} new ids"):
        beam_search(decoder(), draw_ids(1, 4), 5, steps=[ban])


def test_what_has_ended_is_found_though_nothing_can_go_on() -> None:
    def ban(scores: Tensor, written: Written) -> Tensor:
        return torch.full_like(scores, -torch.inf) if int(written.num_new[0]) == 1 else scores

    model, prompt = decoder(), draw_ids(1, 4)
    beams = BeamConfig(num_beams=V, num_results=V)
    (result,) = beam_search(model, prompt, 5, beams, end_id=END, steps=[ban])[0]
    assert result.ids.tolist() == [END]
    assert result.score == pytest.approx(float(next_log_probs(model, prompt[0].tolist(), [])[END]))


def test_logits_that_are_no_numbers_are_refused() -> None:
    model = decoder()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(GenerationError, match="a log-probability is not a number"):
        beam_search(model, draw_ids(1, 4), 3)
