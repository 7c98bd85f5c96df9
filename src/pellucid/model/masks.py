"""Which keys a query sees, as one value: causal, bidirectional, sliding window, prefix, documents and padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """The conditions under which a query sees a key; those that are set must all hold.

    Of S keys, the T queries stand at the last T places: query t at S - T + t.

    is_causal        keys at or before the query; a key inside the row's prefix is seen by every query.
    window           keys less than `window` places away: a query sees itself and the window - 1 before it
                     (and, where attention is bidirectional, after it).
    prefix_lengths   [B]: how many first keys of a row are its prefix (prefix LM).
    documents        [B, T] and [B, S]: keys of the query's own document. Padding is document -1, which no text
                     sees. A query that sees no key at all attends to nothing: its result is 0.
    shared_lengths   [B]: how many first keys of a row belong to all its documents, which are then several
                     continuations of one beginning. Only with documents.

    Source: Vaswani et al. 2017 (causal); Beltagy et al. 2020, arXiv:2004.05150 (window); Raffel et al. 2020,
    arXiv:1910.10683, sec. 3.2.1 (prefix).
    """

    is_causal: bool = True
    window: int | None = None
    prefix_lengths: Int[Tensor, " B"] | None = None
    query_documents: Int[Tensor, "B T"] | None = None
    key_documents: Int[Tensor, "B S"] | None = None
    shared_lengths: Int[Tensor, " B"] | None = None

    def within(self, window: int | None) -> Mask:
        """The same mask with a sliding window, or without one."""
        return replace(self, window=window)

    @property
    def is_plain(self) -> bool:
        """Whether there is no condition but, perhaps, causality."""
        return self.window is None and self.prefix_lengths is None and self.key_documents is None

    @property
    def rows(self) -> int | None:
        """B where rows have masks of their own; None where one mask serves all."""
        per_row = self.key_documents if self.key_documents is not None else self.prefix_lengths
        return None if per_row is None else per_row.shape[0]

    def sees(
        self, row: Int[Tensor, "..."], query: Int[Tensor, "..."], key: Int[Tensor, "..."], past: int
    ) -> Bool[Tensor, "..."]:
        """The rule itself, for indices that broadcast: query 0 … T-1, key 0 … S-1, `past` = S - T.

        Both the dense mask below and the fused kernel's block mask are made from it.
        """
        distance = query + past - key
        seen = distance >= 0 if self.is_causal else torch.ones_like(distance, dtype=torch.bool)
        if self.prefix_lengths is not None:
            seen = seen | (key < self.prefix_lengths[row])
        if self.window is not None:
            seen = seen & (distance.abs() < self.window)
        if self.key_documents is not None:
            assert self.query_documents is not None
            belongs = self.query_documents[row, query] == self.key_documents[row, key]
            if self.shared_lengths is not None:
                belongs = belongs | (key < self.shared_lengths[row])
            seen = seen & belongs
        return seen

    def dense(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "rows 1 T S"] | None:
        """True where a query sees a key; None where the kernels know the answer without it.

        Those cases are plain masks: causal with as many queries as keys, one causal query (it is the newest,
        so it sees every key), and bidirectional.
        """
        if self.is_plain and (not self.is_causal or queries in (1, keys)):
            return None
        rows = self.rows or 1
        row = torch.arange(rows, device=device)[:, None, None]
        query = torch.arange(queries, device=device)[:, None]
        seen = self.sees(row, query, torch.arange(keys, device=device), keys - queries)
        return seen.expand(rows, queries, keys)[:, None]
