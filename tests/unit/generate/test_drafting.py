"""What proposes: where lookup finds what follows, what a draft model draws, and the draws themselves."""

import pytest
import torch
from torch import Tensor

from pellucid.errors import ConfigError
from pellucid.generate.drafting import DraftModel, NgramLookup, draw, follow, uniform
from pellucid.generate.written import Written
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.decoding import Decoding


def build(family=DecoderConfig, *, vocabulary: int = 11, context: int = 32, seed: int = 0):
    config = family(vocab_size=vocabulary, d_model=16, num_heads=2, max_seq_len=context)
    return config.build(seed=seed).double().eval()


def softmax(logits: Tensor, written: Written) -> Tensor:
    del written
    return logits.softmax(dim=-1)


def written_after(prompt: Tensor, new: list[int]) -> Written:
    ids = torch.cat((prompt, torch.tensor([new], dtype=torch.long)), dim=1)
    return Written(ids, None, torch.tensor([len(new)]))


# Lookup -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ([1, 2, 3, 4, 9, 1, 2, 3], 2, [4, 9]),
        ([1, 2, 3, 4, 9, 1, 2, 3], 9, [4, 9, 1, 2, 3]),  # no more than there is
        ([1, 2, 3, 4, 2, 3, 5, 1, 2, 3], 1, [4]),  # three ids before two, though these stand nearer
        ([7, 2, 3, 4, 2, 3, 5, 1, 2, 3], 1, [5]),  # the latest place
        ([7, 2, 3, 4, 6, 2, 3, 1, 2, 3], 3, [1, 2, 3]),  # the latest with enough after it; else the earliest:
        ([7, 2, 3, 4, 6, 2, 3, 1, 2, 3], 6, [4, 6, 2, 3, 1, 2]),
        ([5, 5, 5, 5, 5], 2, [5, 5]),
        ([8, 3, 3], 1, [3]),
        ([1, 2, 3, 4], 3, []),
        ([1], 3, []),
        ([], 3, []),
    ],
)
def test_lookup_finds_what_followed_the_longest_run(text: list[int], count: int, found: list[int]) -> None:
    assert NgramLookup().continuation(torch.tensor(text, dtype=torch.long), count).tolist() == found


def slow_lookup(text: list[int], count: int, longest: int, shortest: int) -> list[int]:
    for n in range(longest, shortest - 1, -1):
        places = [
            i for i in range(n, len(text)) if n < len(text) and text[i - n : i] == text[len(text) - n :]
        ]
        enough = [i for i in places if len(text) - i >= count]
        if places:
            start = max(enough) if enough else min(places)
            return text[start : start + count]
    return []


@pytest.mark.parametrize(("longest", "shortest"), [(3, 1), (1, 1), (5, 2), (4, 4)])
def test_lookup_is_the_stated_search(longest: int, shortest: int) -> None:
    lookup = NgramLookup(max_ngram=longest, min_ngram=shortest)
    found = 0
    for seed in range(300):
        text = torch.randint(0, 3, (seed % 20,), generator=torch.Generator().manual_seed(seed))
        count = 1 + seed % 5
        expected = slow_lookup(text.tolist(), count, longest, shortest)
        assert lookup.continuation(text, count).tolist() == expected
        found += bool(expected)
    assert 20 < found < 290


@pytest.mark.parametrize(("family", "expected"), [(DecoderConfig, []), (EncoderDecoderConfig, [7, 8])])
def test_lookup_searches_the_source_of_an_encoder_decoder(family, expected: list[int]) -> None:
    """The target so far is given alone; a decoder's prompt is already in it."""
    model, prompt = build(family), torch.tensor([[4, 5, 6, 7, 8]])
    with NgramLookup().drafting(model, prompt, 9, softmax, 0) as propose:
        drafts = propose(written_after(torch.tensor([[0]]), [5, 6]), 2)
    assert drafts.ids.tolist() == expected
    assert drafts.probabilities.shape == (len(expected), 11)
    assert drafts.probabilities.sum().item() == len(expected)
    assert all(drafts.probabilities[place, new] == 1 for place, new in enumerate(expected))


@pytest.mark.parametrize(("longest", "shortest"), [(3, 0), (2, 3)])
def test_impossible_runs_are_refused(longest: int, shortest: int) -> None:
    with pytest.raises(
        ValueError, match=rf"min_ngram \({shortest}\) must be at least 1 and at most max_ngram"
    ):
        NgramLookup(max_ngram=longest, min_ngram=shortest)


# A draft model ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_draft_model_names_what_it_drew_from_and_goes_on_after_what_was_written() -> None:
    """Against whole passes: after nothing, a draft rejected, all accepted, and a call without drafts."""
    model, prompt = build(), torch.tensor([[4, 5, 6]])
    with torch.inference_mode(), DraftModel(model).drafting(model, prompt, 20, softmax, 7) as propose:
        first = propose(written_after(prompt, []), 3).ids.tolist()
        other = (first[1] + 1) % 11
        second = propose(written_after(prompt, [first[0], other]), 2).ids.tolist()
        new = [first[0], other, *second, 1]
        propose(written_after(prompt, new), 1)
        new += [2, 3, 4]
        drafts = propose(written_after(prompt, new), 4)
    whole = torch.cat((prompt, torch.tensor([new]), drafts.ids[None]), dim=1)
    expected = model(whole).softmax(dim=-1)[0, -5:-1]
    torch.testing.assert_close(drafts.probabilities, expected, rtol=1e-9, atol=1e-9)
    for place, new_id in enumerate(drafts.ids.tolist()):
        assert new_id == draw(expected[place], uniform(7, "draft", len(new) + place))


@torch.inference_mode()
def test_only_what_is_new_is_read() -> None:
    """Three drafts, of which one was accepted: it stays, the id in place of the second is read, no more."""
    model, prompt = build(), torch.tensor([[4, 5, 6]])
    rows = Decoding(model, prompt, 20)
    for new in (1, 2, 3):
        rows.next_logits()
        rows.append(torch.tensor([new]))
    follow(rows, written_after(prompt, [1, 9]))
    assert rows.ids.tolist() == [[4, 5, 6, 1, 9]]
    assert rows.cache.length == 4
    rows.next_logits()
    follow(rows, written_after(prompt, [1, 9, 8, 7]))
    assert rows.ids.tolist() == [[4, 5, 6, 1, 9, 8, 7]]
    assert rows.cache.length == 5


@torch.inference_mode()
def test_there_is_always_an_id_to_read() -> None:
    """Also where the target wrote just what had been drafted and read, and went no further."""
    model, prompt = build(), torch.tensor([[4, 5, 6]])
    rows = Decoding(model, prompt, 20)
    for new in (1, 2, 3):
        rows.next_logits()
        rows.append(torch.tensor([new]))
    follow(rows, written_after(prompt, [1, 2]))
    expected = model(torch.tensor([[4, 5, 6, 1, 2]]))[:, -1]
    torch.testing.assert_close(rows.next_logits(), expected, rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_a_draft_stops_where_its_own_context_is_full() -> None:
    model, prompt = build(context=8), torch.tensor([[4, 5, 6]])
    with DraftModel(model).drafting(model, prompt, 30, softmax, 0) as propose:
        first = propose(written_after(prompt, []), 20).ids.tolist()
        assert len(first) == 6  # the sixth is not read
        again = propose(written_after(prompt, [*first, 1]), 20).ids
        assert len(again) == 5  # four of eight are read again


def test_another_vocabulary_is_refused() -> None:
    target, draft = build(vocabulary=11), build(vocabulary=12)
    with (
        pytest.raises(
            ConfigError, match="the draft model has 12 ids and the model it drafts for 11; use a draft"
        ),
        DraftModel(draft).drafting(target, torch.tensor([[1]]), 5, softmax, 0),
    ):
        pass


# Draws --------------------------------------------------------------------------------------------------


def test_draws_follow_the_distribution_and_depend_on_seed_purpose_and_position() -> None:
    p, draws = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0]), 20_000
    counts = torch.tensor([draw(5 * p, uniform(0, "draft", place)) for place in range(draws)]).bincount(
        minlength=6
    )
    assert counts[p == 0].sum() == 0
    kept = p > 0
    chi_square = ((counts[kept] - draws * p[kept]) ** 2 / (draws * p[kept])).sum()
    assert chi_square < 13.8  # exceeded once in 1000 with 2 degrees of freedom
    assert uniform(0, "draft", 3) == uniform(0, "draft", 3)
    assert (
        len({uniform(seed, word, place) for seed in (0, 1) for word in ("a", "b") for place in (0, 1)}) == 8
    )


@pytest.mark.parametrize(("u", "expected"), [(0.0, 1), (0.25, 3), (0.2499, 1), (1 - 2**-53, 3)])
def test_an_impossible_id_is_never_drawn(u: float, expected: int) -> None:
    assert draw(torch.tensor([0.0, 0.1, 0.0, 0.3, 0.0]), u) == expected
