"""Speculative decoding against plain decoding: the same ids when greedy, the same distribution when drawn."""

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.generate import speculative
from pellucid.generate.drafting import DraftModel, Drafts, NgramLookup
from pellucid.generate.speculative import Verified, correction, num_accepted, speculate
from pellucid.generate.written import Written
from pellucid.model import DecoderConfig, EncoderDecoderConfig, Hidden
from pellucid.model.cache import KVCache
from pellucid.model.decoding import Decoding
from pellucid.model.interface import Start

VOCABULARY = 7


def build(family=DecoderConfig, *, seed: int = 0, context: int = 64, vocabulary: int = VOCABULARY, **fields):
    """Weights drawn wide, so that greedy text is not one id repeated."""
    config = family(
        vocab_size=vocabulary, d_model=8, num_heads=2, max_seq_len=context, tie_embeddings=False, **fields
    )
    model = config.build().double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


LAYERS = {
    DecoderConfig: {"num_layers": 1},
    EncoderDecoderConfig: {"num_encoder_layers": 1, "num_decoder_layers": 1},
}
FAMILIES = pytest.mark.parametrize("family", LAYERS, ids=["decoder", "encoder_decoder"])


def draw_ids(length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(0, vocabulary, (1, length), generator=torch.Generator().manual_seed(seed))


def near(model):
    """Nearly the same model: its drafts are often, not always, right."""
    copy, generator = deepcopy(model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return copy


def greedy(logits: Tensor, written: Written) -> Tensor:
    del written
    return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()


def run(*given, **settings) -> list[int]:
    return [new for call in speculate(*given, **settings) for new in call.ids]


def plain(model, prompt: Tensor, count: int, **given) -> list[int]:
    new = model.generate(prompt, count, **given)[0]
    return new[prompt.shape[1] if model.continues_prompt else 0 :].tolist()


class Script:
    """Drafts what it was told to, right or wrong: new ids by position."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.asked = ids, []

    @contextmanager
    def drafting(self, target, prompt, max_new_tokens, probabilities, seed):
        def propose(written: Written, count: int) -> Drafts:
            self.asked.append(count)
            first = int(written.num_new)
            ids = torch.tensor(self.ids[first : first + count])
            return Drafts(ids, F.one_hot(ids, target.vocab_size).float())

        yield propose


# Greedy -------------------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("context", [1, 2, 7, 12, 64])
@pytest.mark.parametrize("prompt_length", [1, 6, 12, 30])
def test_greedy_ids_are_those_of_plain_decoding(family, context: int, prompt_length: int) -> None:
    """Drafts by the model itself, by strangers with longer and shorter contexts, and by lookup; contexts that roll."""
    for seed in (0, 1):
        model = build(family, seed=seed, context=context, **LAYERS[family])
        prompt = draw_ids(prompt_length, seed)
        expected = plain(model, prompt, 40)
        strangers = [build(family, seed=9, context=length, **LAYERS[family]) for length in (1, 5, 64)]
        proposers = [NgramLookup(), *map(DraftModel, [model, near(model), *strangers])]
        for number, proposer in enumerate(proposers):
            ids = run(model, prompt, 40, proposer, greedy, num_drafts=1 + number)
            assert ids == expected, f"seed {seed}, proposer {number}"


@pytest.mark.parametrize("context", [7, 64])
def test_a_model_of_the_other_family_may_draft(context: int) -> None:
    decoder, answers = (build(family, seed=1, context=context, **LAYERS[family]) for family in LAYERS)
    for target, draft in ((decoder, answers), (answers, decoder)):
        prompt = draw_ids(5)
        assert run(target, prompt, 30, DraftModel(draft), greedy) == plain(target, prompt, 30)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("fields", [{}, {"prompt_mask": "prefix"}], ids=["causal", "prefix"])
@pytest.mark.parametrize("context", [10, 64])
def test_chunks_and_prefix_masks_change_nothing(context: int, fields: dict, chunk: int) -> None:
    model, prompt = build(context=context, num_layers=2, **fields), draw_ids(9)
    expected = plain(model, prompt, 30)
    for proposer in (DraftModel(model), NgramLookup()):
        assert run(model, prompt, 30, proposer, greedy, chunk=chunk) == expected


def test_a_known_beginning_changes_nothing() -> None:
    model, prompt = build(num_layers=2), draw_ids(9)
    first = Decoding(model, prompt, 1)
    with torch.inference_mode():
        first.next_logits()
    known = first.cache.prefix(0, 6)
    assert run(model, prompt, 30, NgramLookup(), greedy, known=known) == plain(model, prompt, 30)


@FAMILIES
def test_text_ends_at_the_end_id_inside_an_accepted_run(family) -> None:
    model, prompt = build(family, **LAYERS[family]), draw_ids(6)
    free = plain(model, prompt, 30)
    assert len(set(free)) > 4
    for end_id in set(free):
        expected = free[: free.index(end_id) + 1]
        for proposer in (DraftModel(model), Script(free), NgramLookup()):
            calls = list(speculate(model, prompt, 30, proposer, greedy, end_id=end_id, num_drafts=15))
            assert [new for call in calls for new in call.ids] == expected
            assert all(call.num_accepted <= len(call.ids) for call in calls)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_no_more_ids_are_written_than_asked_for(count: int) -> None:
    model, prompt = build(seed=3, num_layers=1), draw_ids(4)
    assert run(model, prompt, count, DraftModel(model), greedy) == plain(model, prompt, count)


def test_good_drafts_save_calls_and_each_is_counted() -> None:
    model, prompt = build(seed=3, num_layers=1), draw_ids(4)
    script = Script(plain(model, prompt, 40))
    calls = list(speculate(model, prompt, 40, script, greedy, num_drafts=4, max_drafts=9))
    # 40 ids: 4 + 1, 6 + 1, 8 + 1, 9 + 1, and 8 + 1, after which there is nothing left to write
    assert script.asked == [4, 6, 8, 9, 8]
    assert [call.num_drafted for call in calls] == [call.num_accepted for call in calls] == script.asked


def test_bad_drafts_are_counted_and_fewer_are_made() -> None:
    model, prompt = build(seed=3, num_layers=1), draw_ids(4)
    right = plain(model, prompt, 12)
    script = Script([right[0], *((new + 1) % VOCABULARY for new in right[1:])])
    calls = list(speculate(model, prompt, 12, script, greedy, num_drafts=4))
    assert calls[0] == Verified(right[:2], num_drafted=4, num_accepted=1)
    assert script.asked == [4, 3, 2, *[1] * 7]  # the last id needs no draft
    assert all(call.num_accepted == 0 and len(call.ids) == 1 for call in calls[1:])


def test_no_draft_is_read_past_the_context() -> None:
    """A context of 8: three fit after the prompt of 5; full, it is read again from 4 on, and four more fit, one
    of them the id that the model chose then."""
    model, prompt = build(seed=3, context=8, num_layers=1), draw_ids(5)
    script = Script(plain(model, prompt, 20))
    assert run(model, prompt, 20, script, greedy, num_drafts=15) == plain(model, prompt, 20)
    assert script.asked == [3, 3, 3, 3]


def test_both_models_are_in_evaluation_mode_until_the_end() -> None:
    model, draft = (build(seed=seed, num_layers=1, dropout=0.5).train() for seed in (1, 2))
    calls = speculate(model, draw_ids(4), 9, DraftModel(draft), greedy)
    next(calls)
    assert not model.training
    assert not draft.training
    calls.close()
    assert model.training
    assert draft.training


def test_more_than_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="speculative decoding takes one row, not 2"):
        next(speculate(build(), draw_ids(4).repeat(2, 1), 9, NgramLookup(), greedy))


@pytest.mark.parametrize(("first", "most"), [(0, 4), (5, 4)])
def test_impossible_numbers_of_drafts_are_refused(first: int, most: int) -> None:
    with pytest.raises(
        ValueError, match=rf"num_drafts \({first}\) must be at least 1 and at most max_drafts \({most}\)"
    ):
        next(speculate(build(), draw_ids(4), 9, NgramLookup(), greedy, num_drafts=first, max_drafts=most))


# Drawn --------------------------------------------------------------------------------------------------


def warm(temperature: float, top_k: int, *, frequency: float = 0.0, vocabulary: int | None = None):
    """Temperature and top-k behind a penalty for each time that an id was written, the prompt's too.

    The first new id is besides less likely to be 0.
    """

    def probabilities(logits: Tensor, written: Written) -> Tensor:
        logits, columns = logits[:, :vocabulary].double(), written.ids.shape[1]
        lengths = torch.tensor([columns] * len(logits)) if written.lengths is None else written.lengths
        assert ((written.num_new >= 0) & (written.num_new <= lengths) & (lengths <= columns)).all()
        is_text = torch.arange(columns) >= columns - lengths[:, None]
        times = (F.one_hot(written.ids, VOCABULARY) * is_text[..., None]).sum(dim=1)
        times[:, 0] += written.num_new == 0
        logits = (logits - frequency * times[:, : logits.shape[1]]) / temperature
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf).softmax(dim=-1).float()

    return probabilities


@torch.no_grad()
def enumerate_exactly(model, prompt: Tensor, count: int, temperature: float, top_k: int, frequency: float):
    """The probability of every continuation of `count` ids, by whole forward passes and a formula written anew."""
    exact = {(): 1.0}
    for _ in range(count):
        longer = {}
        for ids, probability in exact.items():
            text = (
                prompt[0].tolist() + list(ids)
                if model.continues_prompt
                else [model.config.start_id or 0, *ids]
            )
            whole = torch.tensor([text])
            logits = (model(whole) if model.continues_prompt else model(prompt, whole))[0, -1].tolist()
            scores = {x: (z - frequency * text.count(x)) / temperature for x, z in enumerate(logits)}
            scores[0] -= 0 if ids else frequency / temperature
            best = sorted(scores, key=scores.__getitem__)[-top_k:]
            weights = {x: torch.tensor(scores[x]).double().exp().item() for x in best}
            for x, weight in weights.items():
                longer[(*ids, x)] = probability * weight / sum(weights.values())
        exact = longer
    return exact


def chi_square(counts: Counter, exact: dict, total: int) -> tuple[float, int]:
    """Of the outcomes expected five times or more and of the others together; and its degrees of freedom."""
    assert set(counts) <= set(exact), "an impossible text was written"
    usual = [ids for ids in exact if exact[ids] * total >= 5]
    pairs = [(counts[ids], exact[ids] * total) for ids in usual]
    seen, expected = (sum(column) for column in zip(*pairs, strict=True))
    if total - expected > 1e-6:
        pairs.append((total - seen, total - expected))
    return sum((o - e) ** 2 / e for o, e in pairs), len(pairs) - 1


def limit(degrees: int) -> float:
    """A chi-square variable of so many degrees is above this once in 10,000 times (Wilson and Hilferty 1931)."""
    return degrees * (1 - 2 / (9 * degrees) + 3.719 * (2 / (9 * degrees)) ** 0.5) ** 3


SETTINGS = {"temperature": 1.5, "top_k": 4, "frequency": 0.4}


def sample(model, prompt: Tensor, proposer, runs: int) -> Counter:
    strategy = warm(**SETTINGS)
    drawn = (run(model, prompt, 3, proposer, strategy, seed=seed, num_drafts=2) for seed in range(runs))
    return Counter(map(tuple, drawn))


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

    def __call__(self, input_ids: Tensor) -> Tensor:
        return self.table[input_ids]

    def start(self, prompt: Tensor, max_new_tokens: int, *, documents: None, dtype: None) -> Start:
        nothing = torch.zeros(0, 1, 1, 64, 1)
        return Start(KVCache(nothing, nothing), prompt, None)


@pytest.mark.parametrize("proposer", [DraftModel(Chain(2)), NgramLookup()], ids=["model", "lookup"])
def test_drawn_ids_follow_the_targets_distribution_however_bad_the_drafts(proposer) -> None:
    model, prompt, runs = Chain(1), torch.tensor([[3, 1, 3, 4, 0, 2, 1, 3]]), 3000
    statistic, degrees = chi_square(
        sample(model, prompt, proposer, runs), enumerate_exactly(model, prompt, 3, **SETTINGS), runs
    )
    assert degrees > 30
    assert statistic < limit(degrees)


def test_drawn_ids_of_an_encoder_decoder_follow_its_distribution() -> None:
    target, draft = (
        build(family, seed=1, vocabulary=5, **fields) for family, fields in reversed(LAYERS.items())
    )
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.6)  # less sure of itself
    prompt = torch.tensor([[3, 1, 3]])
    counts = sample(target, prompt, DraftModel(draft), 400)
    statistic, degrees = chi_square(counts, enumerate_exactly(target, prompt, 3, **SETTINGS), 400)
    assert degrees > 10
    assert statistic < limit(degrees)


WRONG: dict[str, tuple[str, Callable]] = {
    "every draft accepted": ("num_accepted", lambda target, drafts, *_: len(drafts.ids)),
    "no draft's own probability": (
        "num_accepted",
        lambda target, drafts, seed, position: num_accepted(
            target, Drafts(drafts.ids, torch.ones_like(drafts.probabilities)), seed, position
        ),
    ),
    "corrected from p": ("correction", lambda target, drafts, accepted: target[accepted]),
    "one text before every draft": (
        "written_at_each",
        lambda rows, count: Written(
            rows.ids.expand(count + 1, -1), None, torch.tensor([rows.num_new]).expand(count + 1)
        ),
    ),
}


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_rule_would_be_found(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    monkeypatch.setattr(speculative, *WRONG[rule])
    model, prompt = Chain(1), torch.tensor([[3, 1, 3, 4, 0, 2, 1, 3]])
    counts = sample(model, prompt, DraftModel(Chain(2)), 1000)
    exact = enumerate_exactly(model, prompt, 3, **SETTINGS)
    if set(counts) <= set(exact):  # else it wrote what top-k forbids
        statistic, degrees = chi_square(counts, exact, 1000)
        assert statistic > 1.5 * limit(degrees)


def test_the_rule_gives_the_targets_distribution_at_every_place() -> None:
    """Two drafts of known distributions, one by one against enumeration: many more draws than a model allows."""
    generator = torch.Generator().manual_seed(1)
    target = (2 * torch.randn(3, 6, generator=generator)).softmax(dim=-1)
    q = (2 * torch.randn(2, 6, generator=generator)).softmax(dim=-1)
    runs, counts, accepted_runs = 8000, Counter(), 0
    for seed in range(runs):
        ids = [speculative.draw(q[i], speculative.uniform(seed, "draft", i)) for i in range(2)]
        drafts = Drafts(torch.tensor(ids), q)
        accepted = num_accepted(target, drafts, seed, 0)
        own = speculative.draw(
            correction(target, drafts, accepted), speculative.uniform(seed, "correct", accepted)
        )
        counts[([*ids[:accepted], own])[0]] += 1
        accepted_runs += accepted > 0
    statistic, degrees = chi_square(counts, dict(enumerate(target[0].tolist())), runs)
    assert statistic < limit(degrees)
    overlap = torch.minimum(target[0], q[0]).sum().item()  # theorem 3.5 of the paper
    assert abs(accepted_runs / runs - overlap) < 4 * (overlap * (1 - overlap) / runs) ** 0.5


def test_what_is_left_of_the_target_after_a_rejected_draft() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), torch.tensor([[0.25, 0.75, 0.0]])
    drafts = Drafts(torch.tensor([1]), q)
    assert correction(p, drafts, 0).tolist() == [0.25, 0.0, 0.25]
    assert correction(p, drafts, 1).tolist() == [0.0, 1.0, 0.0]
    rounded = Drafts(torch.tensor([1]), p[:1] * (1 + 1e-6))  # rejected by a hair, and nothing is left
    assert correction(p, rounded, 0).tolist() == p[0].tolist()


def test_a_draft_like_the_target_is_always_accepted() -> None:
    model, prompt = build(seed=3, num_layers=1), draw_ids(4)
    calls = list(speculate(model, prompt, 60, DraftModel(model), warm(1.0, 5), seed=4))
    assert sum(call.num_drafted for call in calls) == sum(call.num_accepted for call in calls) > 40


def test_equal_seeds_draw_equal_text_and_leave_the_global_generator_alone() -> None:
    model, prompt, draft = build(seed=3, num_layers=1), draw_ids(4), DraftModel(build(seed=5, num_layers=1))
    before = torch.get_rng_state()
    first, again, other = (run(model, prompt, 30, draft, warm(1.5, 5), seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("context", [9, 64])
def test_a_penalty_sees_what_was_written_before_each_draft(context: int) -> None:
    """Greedy with a penalty, where what may follow depends on every id so far."""
    model, prompt = build(seed=3, context=context, num_layers=1), draw_ids(4)
    strategy = warm(1.0, 1, frequency=1.5)
    ids, expected = prompt, []
    rows = Decoding(model, prompt, 30)
    with torch.inference_mode():
        for _ in range(30):
            scores = rows.next_logits()[0] - 1.5 * ids[0].bincount(minlength=VOCABULARY)
            expected.append(int(scores.argmax()))
            rows.append(torch.tensor(expected[-1:]))
            ids = torch.cat((prompt, torch.tensor([expected])), dim=1)
    for proposer in (DraftModel(model), DraftModel(build(seed=5, num_layers=1)), NgramLookup()):
        assert run(model, prompt, 30, proposer, strategy) == expected
    assert expected != plain(model, prompt, 30)


@pytest.mark.parametrize("proposer", [NgramLookup(), DraftModel(build(seed=5))], ids=["lookup", "model"])
def test_a_strategy_may_leave_out_ids_that_a_tokenizer_has_not(proposer) -> None:
    """The prompt holds an id that cannot be written: lookup drafts it, and it is rejected."""
    model, prompt = build(seed=3), torch.tensor([[6, 5, 6, 5, 6]])
    ids = run(model, prompt, 40, proposer, warm(1.0, 3, vocabulary=5))
    assert len(ids) == 40
    assert max(ids) < 5


def test_the_enumeration_adds_up_to_one() -> None:
    model, prompt = Chain(1), torch.tensor([[3, 1, 3]])
    exact = enumerate_exactly(model, prompt, 3, **SETTINGS)
    assert set(exact) <= set(itertools.product(range(5), repeat=3))
    assert sum(exact.values()) == pytest.approx(1)
