"""Where the queries and keys of a forward pass stand, when rows are packed, padded or continued from a cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.model.cache import KVCache


@dataclass(frozen=True)
class Places:
    """The place of each of T queries and S keys in its sequence, and the document it belongs to.

    Positions are [T] and [S] where all rows agree, else [B, T] and [B, S]; documents are None where each row
    is one document without padding.
    """

    query_positions: Int[Tensor, "*B T"]
    key_positions: Int[Tensor, "*B S"]
    query_documents: Int[Tensor, "B T"] | None = None
    key_documents: Int[Tensor, "B S"] | None = None


def locate(
    input_ids: Int[Tensor, "B T"],
    cache: KVCache | None,
    positions: Int[Tensor, "B T"] | None,
    documents: Int[Tensor, "B T"] | None,
) -> Places:
    """Places of the new ids and of everything cached before them; the cache notes them for the next call.

    Left out, documents go on with the last cached one, and positions count on inside each document, from 0
    where one begins.
    """
    batch, new = input_ids.shape
    if documents is not None and documents.shape != input_ids.shape:
        raise ValueError(
            f"documents {list(documents.shape)} must have the shape of the ids, {list(input_ids.shape)}"
        )
    if positions is not None and positions.shape not in (input_ids.shape, (1, new), (new,)):
        raise ValueError(
            f"positions {list(positions.shape)} must have the shape of the ids, {list(input_ids.shape)}, or [{new}]"
        )
    past = cache.length if cache is not None else 0
    if positions is None and documents is None and (cache is None or cache.positions is None):
        every = torch.arange(past + new, device=input_ids.device)
        return Places(every[past:], every)
    if cache is not None:
        cache.note_places(input_ids.device)
    if documents is None and cache is not None and cache.documents is not None:
        last = cache.documents[:, past - 1 : past] if past else torch.zeros_like(input_ids[:, :1])
        documents = last.expand(batch, new)
    if positions is None:
        positions = _count(documents if documents is not None else torch.zeros_like(input_ids), cache)
    positions = positions.expand(batch, new)
    if cache is None:
        return Places(positions, positions, documents, documents)
    key_positions, key_documents = cache.place(positions, documents)
    return Places(positions, key_positions, documents, key_documents)


def _count(documents: Int[Tensor, "B T"], cache: KVCache | None) -> Int[Tensor, "B T"]:
    """0, 1, 2, … inside each run of one document, going on from the cache where its last document does."""
    before, reached = torch.full_like(documents[:, :1], -2), torch.zeros_like(documents[:, :1])
    if cache is not None and cache.length:
        assert cache.positions is not None
        reached = cache.positions[:, cache.length - 1 : cache.length] + 1
        before = (
            torch.zeros_like(documents[:, :1])
            if cache.documents is None
            else cache.documents[:, cache.length - 1 : cache.length]
        )
    column = torch.arange(documents.shape[1], device=documents.device)
    begins = documents != torch.cat((before, documents[:, :-1]), dim=1)
    run_start = torch.where(begins, column, 0).cummax(dim=1).values
    goes_on = begins.cumsum(dim=1) == 0
    return torch.where(goes_on, column + reached, column - run_start)
