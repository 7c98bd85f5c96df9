"""The store of beginnings: what it finds, what it forgets, and that what it gives changes no logit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generate.prefixes import Prefixes, has_beginnings, shared_beginning
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig
from pellucid.model.cache import Prefix
from pellucid.model.decoding import Decoding

BYTES = 2 * 8 * 4
"""Of one position in the prefixes below: keys and values, 8 numbers of 4 bytes."""


def prefix(ids: list[int]) -> Prefix:
    """Keys that tell which ids they were made from."""
    keys = torch.tensor(ids, dtype=torch.float32)[None, None, :, None].repeat(2, 2, 1, 2)
    return Prefix(keys, -keys)


def store(*texts: list[int], max_bytes: int = 10**6, min_length: int = 1) -> Prefixes:
    prefixes = Prefixes(max_bytes, min_length=min_length)
    for ids in texts:
        prefixes.add(ids, prefix(ids))
    return prefixes


def found(prefixes: Prefixes, ids: list[int]) -> list[int] | None:
    result = prefixes.find(ids)
    if result is None:
        return None
    assert torch.equal(result.values, -result.keys)
    return result.keys[1, 1, :, 0].int().tolist()


def test_the_longest_known_beginning_is_found_and_cut() -> None:
    prefixes = store([1, 2, 3, 4, 5], [1, 2, 9], [7, 7])
    assert found(prefixes, [1, 2, 3, 8, 8]) == [1, 2, 3]
    assert found(prefixes, [1, 2, 9, 3]) == [1, 2, 9]
    assert found(prefixes, [1, 2, 3, 4, 5, 6]) == [1, 2, 3, 4, 5]
    assert found(prefixes, [7, 1]) == [7]
    assert found(prefixes, [2, 1]) is None


def test_what_is_found_is_shorter_than_what_is_asked() -> None:
    prefixes = store([1, 2, 3])
    assert found(prefixes, [1, 2, 3]) == [1, 2]
    assert found(prefixes, [1]) is None
    assert found(prefixes, []) is None


def test_short_beginnings_are_not_worth_it() -> None:
    prefixes = store([1, 2, 3, 4], [5, 6], min_length=3)
    assert len(prefixes) == 1
    assert found(prefixes, [1, 2, 9, 9]) is None
    assert found(prefixes, [1, 2, 3, 9]) == [1, 2, 3]


def test_beginnings_of_others_are_dropped() -> None:
    prefixes = store([1, 2], [3, 4], [1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4])
    assert len(prefixes) == 2
    assert prefixes.bytes == 6 * BYTES
    assert found(prefixes, [1, 2, 3, 4, 5]) == [1, 2, 3, 4]
    assert found(prefixes, [3, 4, 5]) == [3, 4]


def test_the_longest_unused_is_forgotten_first() -> None:
    prefixes = store([1, 1], [2, 2], [3, 3], max_bytes=6 * BYTES)
    assert found(prefixes, [1, 1, 0]) == [1, 1]  # used: [2, 2] is now the oldest
    prefixes.add([2], prefix([2]))  # known, so used too: now [3, 3]
    prefixes.add([4, 4], prefix([4, 4]))
    assert [found(prefixes, [x, x, 0]) for x in (1, 2, 3, 4)] == [[1, 1], [2, 2], None, [4, 4]]
    prefixes.add([5] * 5, prefix([5] * 5))
    assert prefixes.bytes == 5 * BYTES
    assert [found(prefixes, [x, x, 0]) for x in (1, 2, 4)] == [None] * 3


def test_what_is_larger_than_the_store_forgets_nothing() -> None:
    prefixes = store([1, 2, 3], [1, 2, 3, 4, 5], max_bytes=4 * BYTES)
    assert found(prefixes, [1, 2, 3, 4, 5, 6]) == [1, 2, 3]


def test_a_part_of_a_larger_tensor_is_copied() -> None:
    whole = prefix([1, 2, 3, 4])
    prefixes = Prefixes(2 * BYTES, min_length=1)
    prefixes.add([1, 2], whole.first(2))
    whole.keys.zero_()
    whole.values.zero_()
    assert found(prefixes, [1, 2, 3]) == [1, 2]
    assert prefixes._entries[0].prefix.keys.untyped_storage().nbytes() == BYTES


def test_ids_must_be_those_that_were_read() -> None:
    with pytest.raises(ValueError, match="3 ids were given with what was read of 2"):
        store().add([1, 2, 3], prefix([1, 2]))


@pytest.mark.parametrize("given", [{"max_bytes": -1}, {"max_bytes": 1, "min_length": 0}])
def test_impossible_sizes_are_refused(given: dict) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        Prefixes(**given)


def slow_agreement(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


texts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=8)


@given(texts, st.lists(st.integers(0, 1), max_size=7), st.integers(1, 12))
def test_any_store_is_within_its_bound_and_finds_the_longest(texts, wanted, positions) -> None:
    prefixes = store(*texts, max_bytes=positions * BYTES)
    assert prefixes.bytes <= positions * BYTES
    kept = [entry.ids.tolist() for entry in prefixes._entries]
    for ids in kept:
        assert not any(other[: len(ids)] == ids for other in kept if other is not ids)
    longest = max((slow_agreement(ids, wanted[:-1]) for ids in kept), default=0)
    assert found(prefixes, wanted) == (wanted[:longest] or None)
    if sum(map(len, texts)) <= positions:  # nothing had to be forgotten
        assert longest == max(slow_agreement(ids, wanted[:-1]) for ids in texts)


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([], 0),
        ([[1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2, 3, 4], [1, 2]], 1),
        ([[1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 3]], 2),
        ([[1, 2], [2, 2]], 0),
        ([[1], [1, 2]], 0),
    ],
)
def test_prompts_share_a_beginning_shorter_than_each(prompts: list[list[int]], length: int) -> None:
    assert shared_beginning(prompts) == length


def test_which_models_have_beginnings() -> None:
    sizes = {"vocab_size": 11, "d_model": 8, "num_heads": 2}
    assert has_beginnings(DecoderConfig(**sizes).build())
    assert has_beginnings(DecoderConfig(**sizes, prompt_mask="causal").build())
    assert not has_beginnings(DecoderConfig(**sizes, prompt_mask="prefix").build())
    assert not has_beginnings(EncoderDecoderConfig(**sizes).build())


@torch.inference_mode()
def logits_of(
    model: DecoderLM, prompt: list[int], known: Prefix | None = None
) -> tuple[torch.Tensor, Decoding]:
    """Of the ten greedy ids after the prompt."""
    rows, logits = Decoding(model, torch.tensor([prompt]), 10, known=known), []
    for _ in range(10):
        logits.append(rows.next_logits())
        rows.append(logits[-1].argmax(dim=-1))
    return torch.cat(logits), rows


@pytest.mark.parametrize("context", [14, 64])
def test_what_was_found_changes_no_logit_and_is_not_read_again(context: int) -> None:
    config = DecoderConfig(vocab_size=31, d_model=16, num_layers=2, num_heads=2, max_seq_len=context)
    model, widths = config.build(seed=3).double().eval(), []
    plain_hidden = model.hidden
    prompts = [[5, 6, 7, 8, 9, 1], [5, 6, 7, 2, 2, 2, 2, 2], [5, 6, 7, 8, 9, 1, 3, 3]]
    expected = [logits_of(model, prompt)[0] for prompt in prompts]
    model.hidden = lambda ids, **given: widths.append(ids.shape[1]) or plain_hidden(ids, **given)

    prefixes, first = Prefixes(10**6, min_length=2), []
    for prompt, logits in zip(prompts, expected, strict=True):
        with torch.inference_mode():
            known = prefixes.find(prompt)
            rows = Decoding(model, torch.tensor([prompt]), 1, known=known)
            rows.next_logits()
            prefixes.add(prompt, rows.cache.prefix(0, len(prompt)))
        first.append(widths[-1])
        torch.testing.assert_close(logits_of(model, prompt, known)[0], logits, rtol=1e-9, atol=1e-9)
    assert first == [6, 5, 2]
    assert len(prefixes) == 2
