"""Writing: rows of a batch are each as alone, whatever is read together, before, in parts, or drafted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.config import Config, from_tree
from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.drafting import DraftModel, NgramLookup
from pellucid.generate.engine import LEAST_SHARED, Options, Writing
from pellucid.generate.prefixes import Prefixes
from pellucid.generate.sampling import SamplingConfig
from pellucid.model import DecoderConfig, EncoderDecoderConfig, Hidden, KVCache
from pellucid.model.interface import Start
from pellucid.runtime.seeding import uniform

V = 11
NEW = 20
GREEDY = SamplingConfig(temperature=0, max_new_tokens=NEW)
DRAWN = SamplingConfig(temperature=2.5, max_new_tokens=NEW, seed=5)

DECODERS: dict[str, dict[str, Any]] = {
    "rope": {},
    "learned": {"position": {"kind": "learned"}},
    "sinusoidal": {"position": {"kind": "sinusoidal"}},
    "alibi": {"position": {"kind": "alibi"}},
    "t5 bias": {"position": {"kind": "t5", "num_buckets": 8, "max_distance": 12}},
    "no positions": {"position": {"kind": "none"}},
    "window": {"attention": {"window": 4}},
    "windows of some layers, alibi": {
        "attention": {"window": 5, "window_pattern": "LG"},
        "position": {"kind": "alibi"},
    },
    "one key head": {"num_kv_heads": 1},
    "prompt in both directions": {"prompt_mask": "prefix"},
}
MODELS = {
    **{name: ("decoder", fields) for name, fields in DECODERS.items()},
    "encoder-decoder": ("encoder_decoder", {}),
    "encoder-decoder, t5 bias": ("encoder_decoder", {"position": {"kind": "t5"}}),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def build(kind: str = "rope", *, context: int = 64, seed: int = 0) -> Any:
    """Weights drawn wide, so that greedy text is not one id repeated."""
    family, fields = MODELS[kind]
    sizes = {"vocab_size": V, "d_model": 16, "num_heads": 2, "max_seq_len": context, "tie_embeddings": False}
    if family == "decoder":
        config: Config = from_tree(DecoderConfig, {**sizes, "num_layers": 2, **fields})
    else:
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 2, "start_id": 3}
        config = from_tree(EncoderDecoderConfig, {**sizes, **layers, **fields})
    model = config.build().double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator).mul_(0.7)
    return model


def ids(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, V, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


RAGGED = [ids(length, seed) for seed, length in enumerate((3, 17, 1, 8, 17))]
SHARED = [ids(LEAST_SHARED, 9) + ids(length, seed) for seed, length in enumerate((2, 9, 1, 26))]


def write(model: Any, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **given: Any) -> Writing:
    """What comes of it: `texts` are the ids of each row."""
    writing = Writing(model, prompts, sampling, **given)
    texts: list[list[int]] = [[] for _ in range(len(prompts) * given.get("num_results", 1))]
    for step in writing.steps():
        for chosen in step:
            texts[chosen.row].append(chosen.id)
    writing.texts = texts  # type: ignore[attr-defined]
    return writing


def texts(*given: Any, **settings: Any) -> list[list[int]]:
    return write(*given, **settings).texts  # type: ignore[attr-defined]


# Alone, written anew -------------------------------------------------------------------------------------


@torch.no_grad()
def alone(model: Any, prompt: list[int], sampling: SamplingConfig, seed: int = 0) -> list[int]:
    """One text by whole forward passes without a cache, and a draw by its definition."""
    context, new = model.max_seq_len, []

    def newest(text: list[int]) -> list[int]:
        return text if len(text) <= context else text[-(context // 2) :]

    given = newest(prompt)
    text = list(given) if model.continues_prompt else [model.config.start_id]
    seen = len(text)
    for place in range(sampling.max_new_tokens):
        if len(text) > context:
            text = newest(text)
            seen = len(text)
        whole = torch.tensor([text])
        if not model.continues_prompt:
            logits = model(torch.tensor([given]), whole)[0, -1]
        elif model.config.prompt_mask == "prefix":
            logits = model.head(model.hidden(whole, prefix_lengths=torch.tensor([seen])).states)[0, -1]
        else:
            logits = model(whole)[0, -1]
        new.append(pick(logits, sampling.temperature, uniform(seed, "sampling", place)))
        text.append(new[-1])
    return new


def pick(logits: Tensor, temperature: float, u: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    running = np.cumsum(np.exp((logits / temperature).numpy()))
    return int(np.searchsorted(running, u * running[-1], side="right"))


# Batches -------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("context", [24, 96])
@pytest.mark.parametrize("prompts", [RAGGED, SHARED], ids=["ragged", "shared beginning"])
def test_rows_are_each_as_alone(kind: str, context: int, prompts: list[list[int]]) -> None:
    """Also where rows outgrow the context, each at its own time, and prompts that are longer than it."""
    model = build(kind, context=context)
    expected = [alone(model, prompt, GREEDY) for prompt in prompts]
    assert len({tuple(text) for text in expected}) > 1
    assert texts(model, prompts, GREEDY) == expected
    assert texts(model, prompts, GREEDY, options=Options(chunk=5)) == expected


@every_model
def test_results_are_drawn_by_their_own_seeds(kind: str) -> None:
    model = build(kind, context=40)
    prompts = [*RAGGED[:3], SHARED[3]]
    expected = [alone(model, prompt, DRAWN, DRAWN.seed + i) for prompt in prompts for i in range(3)]
    assert len({tuple(text) for text in expected}) == len(expected)
    assert texts(model, prompts, DRAWN, num_results=3) == expected


@pytest.mark.parametrize("kind", ["rope", "encoder-decoder"])
def test_a_row_that_ends_leaves_the_others_as_they_were(kind: str) -> None:
    model = build(kind, context=30)
    expected = [alone(model, prompt, DRAWN, DRAWN.seed + i) for prompt in RAGGED for i in range(2)]
    end = Counter(text[4] for text in expected).most_common(1)[0][0]
    cut = [text[: text.index(end) + 1] if end in text else text for text in expected]
    lengths = sorted({len(text) for text in cut})
    assert len(lengths) > 3

    rows, hidden = [], model.hidden
    model.hidden = lambda read, **inputs: rows.append(len(read)) or hidden(read, **inputs)
    writing = write(model, RAGGED, DRAWN, num_results=2, end_id=end)
    assert writing.texts == cut  # type: ignore[attr-defined]
    assert writing.reasons == {
        row: "end of text" if text[-1] == end else "length" for row, text in enumerate(cut)
    }
    assert rows[1:] == [sum(len(text) > made for text in cut) for made in range(1, lengths[-1])]


def test_a_row_that_is_finished_leaves_the_others_as_they_were() -> None:
    model, prompts = build(), RAGGED[:3]
    writing = Writing(model, prompts, GREEDY)
    made: list[list[int]] = [[], [], []]
    for number, step in enumerate(writing.steps()):
        for chosen in step:
            made[chosen.row].append(chosen.id)
        if number == 3:
            writing.finish(1)
    assert [len(text) for text in made] == [NEW, 4, NEW]
    assert made == [
        alone(model, prompt, GREEDY)[: len(text)] for prompt, text in zip(prompts, made, strict=True)
    ]
    assert writing.reasons == {0: "length", 1: "stop", 2: "length"}


def test_nothing_more_is_read_when_every_row_is_finished() -> None:
    model = build()
    writing = Writing(model, RAGGED[:2], GREEDY)
    steps = writing.steps()
    next(steps)
    model.hidden = None
    writing.finish(0)
    writing.finish(1)
    assert list(steps) == []


def test_ids_that_the_tokenizer_has_not_are_never_written() -> None:
    model = build()
    assert max(max(text) for text in texts(model, RAGGED, DRAWN)) == V - 1
    assert max(max(text) for text in texts(model, RAGGED, DRAWN, vocab_size=6)) < 6


# What is read once ---------------------------------------------------------------------------------------


def watched(model: Any) -> list[int]:
    """How many ids each call of the model reads, padding included."""
    read, hidden = [], model.hidden
    model.hidden = lambda ids, **inputs: read.append(ids.numel()) or hidden(ids, **inputs)
    return read


@pytest.mark.parametrize("kind", DECODERS)
def test_a_beginning_that_prompts_share_is_read_once(kind: str) -> None:
    model = build(kind, context=96)
    read = watched(model)
    texts(model, SHARED, GREEDY)
    rows, width = len(SHARED), max(map(len, SHARED))
    together = [rows * width] if kind == "prompt in both directions" else [LEAST_SHARED, rows * 26]
    assert read == [*together, *[rows] * (NEW - 1)]


def test_a_beginning_that_is_hardly_shared_is_not_read_apart() -> None:
    model = build(context=96)
    read = watched(model)
    texts(model, [prompt[1:] for prompt in SHARED], GREEDY)
    assert read[0] == len(SHARED) * (max(map(len, SHARED)) - 1)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_store_of_what_was_read_changes_nothing_and_saves_reading(kind: str) -> None:
    """Turn by turn, each prompt is the one before, what was written, and something new."""
    model = build(kind, context=96)
    prompt, options = ids(8), Options(prefixes=Prefixes(10**6, min_length=4))
    sampling = GREEDY.model_copy(update={"max_new_tokens": 6})
    for turn in range(3):
        expected = alone(model, prompt, sampling)
        read = watched(model)
        assert texts(model, [prompt], sampling, options=options) == [expected]
        is_reused = turn > 0 and kind != "prompt in both directions"
        # The last id that was written has not been read.
        assert read[0] == (5 if is_reused else len(prompt))
        del model.hidden
        prompt = [*prompt, *expected, *ids(4, turn)]


def test_a_store_serves_batches_and_keeps_what_they_share() -> None:
    model, store = build(context=96), Prefixes(10**6)
    expected = [alone(model, prompt, GREEDY) for prompt in SHARED]
    for first in ([LEAST_SHARED, len(SHARED) * 26], [len(SHARED) * 26]):
        read = watched(model)
        assert texts(model, SHARED, GREEDY, options=Options(prefixes=store)) == expected
        assert read[: len(first)] == first
        del model.hidden
    read = watched(model)
    assert texts(model, SHARED[3:], GREEDY, options=Options(prefixes=store)) == expected[3:]
    assert read[0] == 26


def test_what_has_left_the_context_is_not_kept() -> None:
    model, store = build(context=24), Prefixes(10**6, min_length=1)
    texts(model, [ids(10)], GREEDY, options=Options(prefixes=store))
    assert len(store) == 0
    texts(model, [ids(4)], GREEDY, options=Options(prefixes=store))
    assert len(store) == 1


def test_a_text_that_is_left_halfway_is_kept_too() -> None:
    model, store = build(), Prefixes(10**6, min_length=1)
    steps = Writing(model, [ids(10)], GREEDY, options=Options(prefixes=store)).steps()
    for _ in range(4):
        next(steps)
    steps.close()
    found = store.find([*ids(10), *alone(model, ids(10), GREEDY)])
    assert found is not None
    assert found.length == 10 + 3  # of four ids the last has not been read


# The end of the context ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rope", "learned", "encoder-decoder"])
@pytest.mark.parametrize("proposer", [None, NgramLookup()], ids=["plain", "drafts"])
def test_a_text_may_stop_where_the_context_is_full(kind: str, proposer: Any) -> None:
    model, prompt = build(kind, context=16), ids(9)
    options = Options(when_full="stop", proposer=proposer)
    writing = write(model, [prompt], GREEDY, options=options)
    room = 16 + 1 - (9 if model.continues_prompt else 1)  # the last one is chosen and not read
    assert writing.texts == [alone(model, prompt, GREEDY)[:room]]  # type: ignore[attr-defined]
    assert writing.reasons == {0: "context"}


def test_rows_stop_each_where_it_is_full_itself() -> None:
    model, prompts = build(context=16), [ids(length, length) for length in (16, 9, 1)]
    writing = write(model, prompts, GREEDY, options=Options(when_full="stop"))
    expected = [alone(model, prompt, GREEDY)[: 17 - len(prompt)] for prompt in prompts]
    assert writing.texts == expected  # type: ignore[attr-defined]
    assert writing.reasons == dict.fromkeys(range(3), "context")


@pytest.mark.parametrize("proposer", [None, NgramLookup()], ids=["plain", "drafts"])
def test_what_fits_ends_by_its_length(proposer: Any) -> None:
    options = Options(when_full="stop", proposer=proposer)
    writing = write(
        build(context=16), [ids(9)], GREEDY.model_copy(update={"max_new_tokens": 8}), options=options
    )
    assert writing.reasons == {0: "length"}
    assert [len(text) for text in writing.texts] == [8]  # type: ignore[attr-defined]
