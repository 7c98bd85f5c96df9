"""Every condition of a mask, against its definition written as nested loops."""

import itertools

import pytest
import torch

from pellucid.model.kernels import AttentionContext, block_mask
from pellucid.model.masks import Mask

CPU = torch.device("cpu")
KEYS = 7

# Three rows: packed and padded on the left, on the right, and padding alone.
DOCUMENTS = torch.tensor([[-1, -1, 0, 0, 0, 1, 1], [3, 3, 4, 4, 4, -1, -1], [-1] * 7])
PREFIX_LENGTHS = torch.tensor([0, 3, 7])

conditions = pytest.mark.parametrize(
    ("is_causal", "window", "has_prefix", "has_documents", "past"),
    list(itertools.product((True, False), (None, 1, 3), (True, False), (True, False), (0, 2, 6))),
)


def mask_of(is_causal: bool, window: int | None, has_prefix: bool, has_documents: bool, past: int) -> Mask:
    return Mask(
        is_causal=is_causal,
        window=window,
        prefix_lengths=PREFIX_LENGTHS if has_prefix else None,
        query_documents=DOCUMENTS[:, past:] if has_documents else None,
        key_documents=DOCUMENTS if has_documents else None,
    )


def by_definition(
    is_causal: bool, window: int | None, has_prefix: bool, has_documents: bool, past: int
) -> torch.Tensor:
    seen = torch.zeros(3, KEYS - past, KEYS, dtype=torch.bool)
    for row in range(3):
        for query in range(KEYS - past):
            for key in range(KEYS):
                place = past + query
                may = True
                if is_causal:
                    in_prefix = has_prefix and key < int(PREFIX_LENGTHS[row])
                    may = key <= place or in_prefix
                if window is not None:
                    may = may and abs(place - key) <= window - 1
                if has_documents:
                    may = may and bool(DOCUMENTS[row, place] == DOCUMENTS[row, key])
                seen[row, query, key] = may
    return seen


@conditions
def test_written_out_it_is_the_definition(is_causal, window, has_prefix, has_documents, past) -> None:
    arguments = (is_causal, window, has_prefix, has_documents, past)
    mask, queries = mask_of(*arguments), KEYS - past
    expected = by_definition(*arguments)
    written = mask.dense(queries, KEYS, CPU)
    if written is None:
        assert mask.is_plain
        written = AttentionContext(mask=mask).seen(queries, KEYS, CPU)
    if written is None:
        assert expected.all()
        return
    assert written.shape[0] == (mask.rows or 1)
    assert torch.equal(written.expand(3, 1, queries, KEYS)[:, 0], expected)


@conditions
def test_the_block_mask_follows_the_same_rule(is_causal, window, has_prefix, has_documents, past) -> None:
    arguments = (is_causal, window, has_prefix, has_documents, past)
    mask, queries, expected = mask_of(*arguments), KEYS - past, by_definition(*arguments)
    blocks = block_mask(mask, queries, KEYS, CPU)
    if blocks is None:
        assert expected.all()
        return
    for row, query, key in itertools.product(range(3), range(queries), range(KEYS)):
        seen = blocks.mask_mod(*(torch.tensor(i) for i in (row, 0, query, key)))
        assert bool(seen) == bool(expected[row, query, key])


@pytest.mark.parametrize(
    ("is_causal", "queries", "is_written"),
    [(True, 7, False), (True, 1, False), (True, 3, True), (False, 7, False), (False, 3, False)],
)
def test_a_plain_mask_is_written_out_only_where_kernels_cannot_know_it(
    is_causal: bool, queries: int, is_written: bool
) -> None:
    mask = Mask(is_causal=is_causal)
    assert mask.is_plain
    assert mask.rows is None
    assert (mask.dense(queries, KEYS, CPU) is not None) == is_written


def test_one_mask_serves_all_rows_where_none_has_its_own() -> None:
    written = Mask(window=2).dense(KEYS, KEYS, CPU)
    assert written is not None
    assert written.shape == (1, 1, KEYS, KEYS)


def test_a_window_is_set_and_taken_away_and_the_rest_stays() -> None:
    mask = Mask(is_causal=False, prefix_lengths=PREFIX_LENGTHS, window=4)
    assert mask.within(2) == Mask(is_causal=False, prefix_lengths=PREFIX_LENGTHS, window=2)
    assert mask.within(None).window is None
    assert mask.within(None).prefix_lengths is PREFIX_LENGTHS
    assert mask.window == 4


def test_text_sees_no_padding_and_padding_sees_no_text() -> None:
    written = Mask(is_causal=False, query_documents=DOCUMENTS, key_documents=DOCUMENTS).dense(KEYS, KEYS, CPU)
    assert written is not None
    is_text = DOCUMENTS >= 0
    crosses = is_text[:, :, None] != is_text[:, None, :]
    assert crosses.any()
    assert not (written[:, 0] & crosses).any()


def test_continuations_see_the_beginning_they_share_and_none_another() -> None:
    documents = torch.tensor([[0, 0, 1, 1, 2, 2, -1]])
    mask = Mask(query_documents=documents, key_documents=documents, shared_lengths=torch.tensor([2]))
    dense = mask.dense(KEYS, KEYS, CPU)
    assert dense is not None
    wanted = ["1......", "11.....", "111....", "1111...", "11..1..", "11..11."]
    found = ["".join("1" if key else "." for key in query) for query in dense[0, 0].tolist()]
    assert found[:6] == wanted
    blocks = block_mask(mask, KEYS, KEYS, CPU)
    row, head, query, key = torch.meshgrid(
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        *[torch.arange(KEYS)] * 2,
        indexing="ij",
    )
    assert torch.equal(blocks.mask_mod(row, head, query, key), dense)
