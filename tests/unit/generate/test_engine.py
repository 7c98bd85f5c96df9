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
SHARED = [ids(LEAST_SHARED, 9) + ids(length, seed) for seed, length in enumerate((2, 9, 1, 14))]


def write(
    model: Any, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **given: Any
) -> tuple[list[list[int]], Writing]:
    """The new ids of each row, and what wrote them."""
    writing = Writing(model, prompts, sampling, **given)
    rows: list[list[int]] = [[] for _ in range(len(prompts) * given.get("num_results", 1))]
    for step in writing.steps():
        for chosen in step:
            rows[chosen.row].append(chosen.id)
    return rows, writing


def texts(*given: Any, **settings: Any) -> list[list[int]]:
    return write(*given, **settings)[0]


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
    new, writing = write(model, RAGGED, DRAWN, num_results=2, end_id=end)
    assert new == cut
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
    together = [rows * width] if kind == "prompt in both directions" else [LEAST_SHARED, rows * 14]
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
    for first in ([LEAST_SHARED, len(SHARED) * 14], [len(SHARED) * 14]):
        read = watched(model)
        assert texts(model, SHARED, GREEDY, options=Options(prefixes=store)) == expected
        assert read[: len(first)] == first
        del model.hidden
    read = watched(model)
    assert texts(model, SHARED[3:], GREEDY, options=Options(prefixes=store)) == expected[3:]
    assert read[0] == 14


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
    new, writing = write(model, [prompt], GREEDY, options=options)
    room = 16 + 1 - (9 if model.continues_prompt else 1)  # the last one is chosen and not read
    assert new == [alone(model, prompt, GREEDY)[:room]]
    assert writing.reasons == {0: "context"}


def test_rows_stop_each_where_it_is_full_itself() -> None:
    model, prompts = build(context=16), [ids(length, length) for length in (16, 9, 1)]
    new, writing = write(model, prompts, GREEDY, options=Options(when_full="stop"))
    expected = [alone(model, prompt, GREEDY)[: 17 - len(prompt)] for prompt in prompts]
    assert new == expected
    assert writing.reasons == dict.fromkeys(range(3), "context")


@pytest.mark.parametrize("proposer", [None, NgramLookup()], ids=["plain", "drafts"])
def test_what_fits_ends_by_its_length(proposer: Any) -> None:
    options = Options(when_full="stop", proposer=proposer)
    new, writing = write(
        build(context=16), [ids(9)], GREEDY.model_copy(update={"max_new_tokens": 8}), options=options
    )
    assert writing.reasons == {0: "length"}
    assert [len(text) for text in new] == [8]


# Log-probabilities ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rope", "windows of some layers, alibi", "encoder-decoder"])
def test_log_probabilities_are_those_of_a_whole_forward_pass(kind: str) -> None:
    """The model's own, whatever the settings make of them, over the ids that the tokenizer has."""
    model, had = build(kind), V - 2
    sampling = DRAWN.model_copy(update={"top_k": 3, "repetition_penalty": 1.5})
    writing = Writing(
        model, RAGGED, sampling, num_results=2, vocab_size=had, options=Options(alternatives=4, chunk=3)
    )
    rows: dict[int, list[Any]] = {row: [] for row in range(2 * len(RAGGED))}
    for step in writing.steps():
        for chosen in step:
            assert chosen.log_probability.id == chosen.id
            rows[chosen.row].append(chosen.log_probability)
    for row, logs in rows.items():
        prompt, new = RAGGED[row // 2], [each.id for each in logs]
        if model.continues_prompt:
            logits = model(torch.tensor([[*prompt, *new[:-1]]]))[0, len(prompt) - 1 :]
        else:
            start = [model.config.start_id, *new[:-1]]
            logits = model(torch.tensor([prompt]), torch.tensor([start]))[0]
        expected = logits[:, :had].log_softmax(dim=-1)
        torch.testing.assert_close(
            torch.tensor([each.log_probability for each in logs]).double(),
            expected[range(NEW), new],
            rtol=0,
            atol=1e-5,
        )
        best = expected.topk(4, dim=-1)
        assert [[i for i, _ in each.alternatives] for each in logs] == best.indices.tolist()
        torch.testing.assert_close(
            torch.tensor([[p for _, p in each.alternatives] for each in logs]).double(),
            best.values,
            rtol=0,
            atol=1e-5,
        )


# Drafts --------------------------------------------------------------------------------------------------

PROPOSERS: dict[str, Callable[[Any], Any]] = {
    "lookup": lambda model: NgramLookup(),
    "another model": lambda model: DraftModel(build(seed=4)),
    "the same model": DraftModel,
}
every_proposer = pytest.mark.parametrize("proposer", PROPOSERS)


@every_model
@every_proposer
@pytest.mark.parametrize("context", [24, 96])
def test_greedy_ids_are_the_same_with_drafts(kind: str, proposer: str, context: int) -> None:
    model = build(kind, context=context)
    options = Options(proposer=PROPOSERS[proposer](model), chunk=5)
    for prompt in (RAGGED[0], RAGGED[1], RAGGED[1] * 2):
        new, writing = write(model, [prompt], GREEDY, options=options)
        assert new == [alone(model, prompt, GREEDY)]
        assert 0 <= writing.accepted <= writing.drafted
        assert writing.reasons == {0: "length"}
        if proposer == "the same model" and context == 96:
            assert writing.accepted == writing.drafted > 0


@every_proposer
def test_settings_that_see_the_text_are_the_same_with_drafts(proposer: str) -> None:
    model = build()
    settings = {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "banned": [[2, 7], 4], "forced": [1, 1]}
    sampling = SamplingConfig(temperature=0, max_new_tokens=NEW, min_new_tokens=9, **settings)
    for prompt in RAGGED:
        (plain,) = texts(model, [prompt], sampling, end_id=6)
        options = Options(proposer=PROPOSERS[proposer](model))
        assert texts(model, [prompt], sampling, end_id=6, options=options) == [plain]
        assert plain[:2] == [1, 1]
        assert 6 not in plain[:8]


def test_an_end_inside_a_run_of_drafts_ends_the_text() -> None:
    model, prompt = build(), RAGGED[1]
    text = alone(model, prompt, GREEDY)
    place = next(place for place, new in enumerate(text) if place > 1 and new not in text[:place])
    assert place < 4  # among the first four drafts
    new, writing = write(
        model, [prompt], GREEDY, end_id=text[place], options=Options(proposer=DraftModel(model))
    )
    assert new == [text[: place + 1]]
    assert writing.reasons == {0: "end of text"}


@every_proposer
def test_drafts_keep_what_was_read_and_reuse_it(proposer: str) -> None:
    """Drafts that were rejected are read too, and no part of the text that is found again."""
    model, store = build(context=96), Prefixes(10**6)
    options = Options(prefixes=store, proposer=PROPOSERS[proposer](build(context=96)))
    sampling, prompt = GREEDY.model_copy(update={"max_new_tokens": 7}), SHARED[3]
    for turn in range(3):
        expected = alone(model, prompt, sampling)
        read = watched(model)
        assert texts(model, [prompt], sampling, options=options) == [expected]
        first_new = len(prompt) if turn == 0 else 4  # the last id that was written had not been read
        assert first_new <= read[0] <= first_new + 4
        del model.hidden
        prompt = [*prompt, *expected, *ids(3, turn)]


@every_proposer
def test_what_is_banned_behind_a_rejected_draft_is_no_error(proposer: str) -> None:
    """Nothing may follow 4 and 4 may not come, so that no text gets there; a draft may."""
    model = build()
    banned = [4, *([4, after] for after in range(V))]
    sampling = GREEDY.model_copy(update={"banned": SamplingConfig(banned=banned).banned})
    prompt = [1, 4, 1, 4, 1, 4, 1, 4, 2, 1]
    plain = texts(model, [prompt], sampling)
    assert texts(model, [prompt], sampling, options=Options(proposer=PROPOSERS[proposer](model))) == plain


def test_what_is_banned_behind_a_draft_ends_only_the_drafts() -> None:
    """Nothing may follow an id that the draft model would choose and the model would not."""
    model, draft, prompt = build(), build(seed=4), RAGGED[1]
    plain = alone(model, prompt, GREEDY)
    (wrong, *_) = alone(draft, prompt, GREEDY)
    assert wrong not in plain
    banned = SamplingConfig(banned=[[wrong, after] for after in range(V)]).banned
    sampling = GREEDY.model_copy(update={"banned": banned})
    new, writing = write(model, [prompt], sampling, options=Options(proposer=DraftModel(draft)))
    assert new == [plain]
    assert writing.drafted > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@every_proposer
def test_where_a_text_gets_to_what_is_banned_there_is_an_error(proposer: str, temperature: float) -> None:
    model = build()
    banned = [[4, 4, 4, after] for after in range(V)]
    sampling = SamplingConfig(temperature=temperature, forced=(4, 4, 4), banned=banned)
    writing = Writing(
        model, [[1, 4, 4, 4, 1, 2]], sampling, options=Options(proposer=PROPOSERS[proposer](model))
    )
    with pytest.raises(ConfigError, match="the settings leave no id to choose; loosen banned"):
        list(writing.steps())


class Chain:
    """A language model that sees one id: quick enough for thousands of texts, and tables are exact."""

    config = DecoderConfig(vocab_size=5)
    vocab_size, max_seq_len, continues_prompt, device = 5, 64, True, torch.device("cpu")

    def __init__(self, seed: int) -> None:
        self.table = 1.5 * torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))

    def hidden(self, input_ids: Tensor, *, cache: KVCache) -> Hidden:
        cache.advance(input_ids.shape[1])
        return Hidden(self.table[input_ids])

    def head(self, states: Tensor) -> Tensor:
        return states

    def start(self, prompt: Tensor, max_new_tokens: int, *, documents: None, dtype: None) -> Start:
        nothing = torch.zeros(0, len(prompt), 1, 64, 1)
        return Start(KVCache(nothing, nothing), prompt, None)


def distribution(table: Tensor, last: int, *, temperature: float, top_p: float) -> dict[int, float]:
    weights = np.exp(table[last].double().numpy() / temperature)
    p, kept, mass = weights / weights.sum(), {}, 0.0
    for i in np.argsort(-p):
        kept[int(i)] = float(p[i])
        mass += p[i]
        if mass >= top_p:
            break
    return {i: share / mass for i, share in kept.items()}


@pytest.mark.parametrize("how", ["plain", "lookup", "model"])
def test_frequencies_are_those_of_the_distribution(how: str) -> None:
    """Pearson's chi-square over all texts of two ids, drawn by as many seeds."""
    model, prompt, runs = Chain(1), [3, 1, 3, 4, 0, 2, 1, 3], {"plain": 20_000}.get(how, 1500)
    settings = {"temperature": 1.5, "top_p": 0.9}
    exact = {
        (first, second): p * q
        for first, p in distribution(model.table, prompt[-1], **settings).items()
        for second, q in distribution(model.table, first, **settings).items()
    }
    assert len(exact) < 25  # top-p cuts
    sampling = SamplingConfig(max_new_tokens=2, **settings)
    if how == "plain":
        drawn = texts(model, [prompt], sampling, num_results=runs)
    else:
        proposer = NgramLookup() if how == "lookup" else DraftModel(Chain(2))
        seeds = (sampling.model_copy(update={"seed": seed}) for seed in range(runs))
        drawn = [texts(model, [prompt], each, options=Options(proposer=proposer))[0] for each in seeds]
    counts = Counter(map(tuple, drawn))
    assert set(counts) <= set(exact)
    assert min(exact.values()) * runs > 5
    statistic = sum((counts[text] - p * runs) ** 2 / (p * runs) for text, p in exact.items())
    # A fair sample is above this once in a million times (Laurent & Massart 2000, lemma 1).
    degrees, x = len(exact) - 1, math.log(1e6)
    assert statistic < degrees + 2 * math.sqrt(degrees * x) + 2 * x


# What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there is no prompt; give at least one"),
        ([[]], "the prompt is empty: a model needs at least one id"),
        ([[1], []], "prompt 2 is empty"),
        (
            [[1, V]],
            rf"the prompt has the id {V}, and the model's ids go from 0 to {V - 1}; use the tokenizer",
        ),
        ([[1], [3, -1]], rf"prompt 2 has the id -1, and the model's ids go from 0 to {V - 1}"),
    ],
)
def test_prompts_that_cannot_be_are_refused(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Writing(build(), prompts, GREEDY)


@pytest.mark.parametrize("kind", ["rope", "encoder-decoder"])
def test_a_prompt_longer_than_the_context_is_refused_where_that_may_not_roll(kind: str) -> None:
    model = build(kind, context=16)
    with pytest.raises(
        ConfigError, match="prompt 2 has 17 tokens and the context only 16; shorten it, or let"
    ):
        Writing(model, [ids(16), ids(17)], GREEDY, options=Options(when_full="stop"))
    assert len(texts(model, [ids(17)], GREEDY)[0]) == NEW


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"when_full": "rol"}, "when_full must be 'roll' or 'stop', not 'rol'"),
        ({"chunk": 0}, "chunk must be at least 1 or None, not 0"),
        ({"alternatives": -1}, "alternatives must be at least 0 or None, not -1"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**given)


@pytest.mark.parametrize(
    ("prompts", "options", "num_results"),
    [(2, {}, 1), (1, {}, 2), (1, {"alternatives": 0}, 1)],
    ids=["two prompts", "two results", "log-probabilities"],
)
def test_drafts_are_for_one_text(prompts: int, options: dict[str, Any], num_results: int) -> None:
    with pytest.raises(ConfigError, match=r"drafts .* are for one prompt, one result and no log-prob"):
        Writing(
            build(),
            RAGGED[:prompts],
            GREEDY,
            num_results=num_results,
            options=Options(proposer=NgramLookup(), **options),
        )


def test_no_results_are_refused() -> None:
    with pytest.raises(ConfigError, match="the number of results must be at least 1, not 0"):
        Writing(build(), RAGGED, GREEDY, num_results=0)


def test_a_draft_model_of_another_vocabulary_is_refused() -> None:
    other = DecoderConfig(vocab_size=V + 1, d_model=8, num_layers=1, num_heads=2).build()
    writing = Writing(build(), [[1]], GREEDY, options=Options(proposer=DraftModel(other)))
    with pytest.raises(
        ConfigError, match=rf"the draft model has {V + 1} ids and the model it drafts for {V}"
    ):
        list(writing.steps())


@pytest.mark.parametrize("proposer", [None, NgramLookup()], ids=["plain", "drafts"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banning_all_ids_and_broken_weights_are_told_apart(proposer: Any, temperature: float) -> None:
    model, options = build(), Options(proposer=proposer)
    banned = SamplingConfig(temperature=temperature, banned=range(V))
    with pytest.raises(ConfigError, match="the settings leave no id to choose; loosen banned"):
        list(Writing(model, [[1]], banned, options=options).steps())
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(GenerationError, match="the model's logits are NaN or infinite"):
        list(Writing(model, [[1]], SamplingConfig(temperature=temperature), options=options).steps())
