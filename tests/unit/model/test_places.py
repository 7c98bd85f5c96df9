"""Positions and documents of new ids, alone and after what is cached, against a loop over each row."""

import pytest
import torch
from torch import Tensor

from pellucid.model import KVCache
from pellucid.model.places import Places, locate

DOCUMENTS = torch.tensor(
    [
        [-1, -1, 0, 0, 0, 0, 0, 0],  # padded on the left
        [0, 0, 0, 1, 1, 2, 2, 2],  # packed
        [5, 5, 5, 5, -1, -1, -1, -1],  # padded on the right
        [0, 0, 1, 1, 0, 0, 0, 0],  # a number used again is another document
    ]
)
COUNTED = torch.tensor(
    [
        [0, 1, 0, 1, 2, 3, 4, 5],
        [0, 1, 2, 0, 1, 0, 1, 2],
        [0, 1, 2, 3, 0, 1, 2, 3],
        [0, 1, 0, 1, 0, 1, 2, 3],
    ]
)
chunks = pytest.mark.parametrize("chunks", [[8], [3, 5], [1] * 8, [2, 1, 1, 4], [4, 4]], ids=str)


def empty_cache(rows: int = 4, max_length: int = 8) -> KVCache:
    return KVCache.allocate(
        num_layers=1,
        batch_size=rows,
        num_kv_heads=1,
        max_length=max_length,
        head_dim=2,
        device="cpu",
        dtype=torch.float32,
    )


def ids(length: int, rows: int = 4) -> Tensor:
    return torch.zeros(rows, length, dtype=torch.long)


def locate_next(
    cache: KVCache, length: int, positions: Tensor | None = None, documents: Tensor | None = None
) -> Places:
    places = locate(ids(length, cache.keys.shape[1]), cache, positions, documents)
    cache.advance(length)
    return places


def test_rows_that_agree_share_their_positions() -> None:
    places = locate(ids(5), None, None, None)
    assert places.query_positions.tolist() == places.key_positions.tolist() == [0, 1, 2, 3, 4]
    assert places.query_documents is places.key_documents is None


@chunks
def test_a_cache_whose_rows_agree_counts_on_and_notes_nothing(chunks: list[int]) -> None:
    cache, past = empty_cache(), 0
    for length in chunks:
        places = locate_next(cache, length)
        assert places.query_positions.tolist() == list(range(past, past + length))
        assert places.key_positions.tolist() == list(range(past + length))
        past += length
    assert cache.positions is cache.documents is None


@chunks
def test_positions_start_anew_in_each_document_however_the_ids_arrive(chunks: list[int]) -> None:
    whole = locate(ids(8), None, None, DOCUMENTS)
    assert torch.equal(whole.query_positions, COUNTED)
    assert torch.equal(whole.key_positions, COUNTED)
    assert torch.equal(whole.query_documents, DOCUMENTS)
    assert torch.equal(whole.key_documents, DOCUMENTS)
    cache, past = empty_cache(), 0
    for length in chunks:
        end = past + length
        places = locate_next(cache, length, documents=DOCUMENTS[:, past:end])
        assert torch.equal(places.query_positions, COUNTED[:, past:end])
        assert torch.equal(places.key_positions, COUNTED[:, :end])
        assert torch.equal(places.query_documents, DOCUMENTS[:, past:end])
        assert torch.equal(places.key_documents, DOCUMENTS[:, :end])
        past = end


@chunks
def test_given_positions_are_taken_as_they_are(chunks: list[int]) -> None:
    positions = torch.randint(0, 50, (4, 8), generator=torch.Generator().manual_seed(0))
    whole = locate(ids(8), None, positions, None)
    assert torch.equal(whole.query_positions, positions)
    assert torch.equal(whole.key_positions, positions)
    assert whole.query_documents is whole.key_documents is None
    cache, past = empty_cache(), 0
    for length in chunks:
        end = past + length
        places = locate_next(cache, length, positions=positions[:, past:end])
        assert torch.equal(places.query_positions, positions[:, past:end])
        assert torch.equal(places.key_positions, positions[:, :end])
        past = end


def test_positions_of_one_row_serve_all() -> None:
    places = locate(ids(3), None, torch.tensor([[4, 5, 6]]), None)
    assert places.query_positions.tolist() == [[4, 5, 6]] * 4


def test_left_out_documents_and_positions_go_on_with_the_cached_ones() -> None:
    cache = empty_cache()
    locate_next(cache, 5, documents=DOCUMENTS[:, :5])
    places = locate_next(cache, 2)
    last = DOCUMENTS[:, 4:5]
    assert torch.equal(places.query_documents, last.expand(4, 2))
    assert torch.equal(places.query_positions, COUNTED[:, 4:5] + torch.tensor([[1, 2]]))
    assert torch.equal(places.key_documents, torch.cat((DOCUMENTS[:, :5], last, last), dim=1))


def test_left_out_positions_go_on_with_given_ones() -> None:
    cache = empty_cache(rows=2)
    locate_next(cache, 3, positions=torch.tensor([[7, 8, 9], [0, 0, 1]]))
    places = locate_next(cache, 2)
    assert places.query_positions.tolist() == [[10, 11], [2, 3]]
    assert places.key_positions.tolist() == [[7, 8, 9, 10, 11], [0, 0, 1, 2, 3]]


def test_documents_that_come_late_find_what_was_cached_in_document_0_at_its_column() -> None:
    cache = empty_cache(rows=2)
    locate_next(cache, 3)
    places = locate_next(cache, 3, documents=torch.tensor([[0, 0, 1], [2, 2, 2]]))
    assert places.key_documents.tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 2, 2, 2]]
    assert places.key_positions.tolist()[1] == [0, 1, 2, 0, 1, 2]


def test_more_than_the_cache_holds_is_refused() -> None:
    cache = empty_cache(rows=2, max_length=4)
    locate_next(cache, 3, documents=torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="the cache holds 4 positions and 5 are needed"):
        locate_next(cache, 2)
