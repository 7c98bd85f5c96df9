"""The key/value cache: preallocated tensors and a length, handed to the model as an argument. No policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CrossCache:
    """What a decoder needs of an encoded source: keys and values of every layer, computed once.

    keys, values: [layers, B, K, S, E]; documents: [B, S], or None where the source has no padding.
    """

    keys: Float[Tensor, "L B K S E"]
    values: Float[Tensor, "L B K S E"]
    documents: Int[Tensor, "B S"] | None

    def reordered(self, index: Int[Tensor, " B_new"]) -> CrossCache:
        return CrossCache(
            self.keys.index_select(1, index),
            self.values.index_select(1, index),
            None if self.documents is None else self.documents.index_select(0, index),
        )


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a decoder has read of a beginning, to be taken over by other rows that begin alike.

    keys, values: [layers, K, length, E].
    """

    keys: Float[Tensor, "L K T E"]
    values: Float[Tensor, "L K T E"]

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.keys, self.values))

    def first(self, length: int) -> Prefix:
        """The same of its first `length` positions."""
        return Prefix(self.keys[:, :, :length], self.values[:, :, :length])


@dataclass(eq=False)
class KVCache:
    """Keys and values of the positions seen so far, for every layer.

    keys, values: [layers, B, K, max_length, E]; the first `length` positions are filled. Memory in bytes:
    2 · layers · B · K · max_length · E · bytes of the dtype.

    positions, documents: [B, max_length], the places of what is cached, once rows differ in them (padded
    prompts, packed documents); None until then. cross: an encoder-decoder's encoded source. Rows of the same
    origin were one row once (see `reorder`): their sources and their first `shared_length` positions are equal.
    origins is None as long as each row is its own.
    """

    keys: Float[Tensor, "L B K S E"]
    values: Float[Tensor, "L B K S E"]
    length: int = 0
    positions: Int[Tensor, "B S"] | None = None
    documents: Int[Tensor, "B S"] | None = None
    cross: CrossCache | None = None
    origins: Int[Tensor, " B"] | None = None
    shared_length: int = 0

    @classmethod
    def allocate(
        cls,
        *,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        max_length: int,
        head_dim: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> KVCache:
        shape = (num_layers, batch_size, num_kv_heads, max_length, head_dim)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
        )

    @property
    def max_length(self) -> int:
        return self.keys.shape[3]

    @property
    def bytes(self) -> int:
        tensors = [self.keys, self.values]
        if self.cross is not None:
            tensors += [self.cross.keys, self.cross.values]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def append(
        self, layer: int, keys: Float[Tensor, "B K T E"], values: Float[Tensor, "B K T E"]
    ) -> tuple[Float[Tensor, "B K S E"], Float[Tensor, "B K S E"]]:
        """Write T new positions of one layer after the filled ones; return all S = length + T of them.

        The length itself moves once for all layers, by `advance`. Raises ValueError when the cache is full,
        or when its rows are not those of the input.
        """
        self.require_room(keys.shape[0], keys.shape[2])
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def note_places(self, device: torch.device) -> None:
        """Keep positions from now on; what is cached already stands at its column."""
        if self.positions is None:
            columns = torch.arange(self.max_length, device=device)
            self.positions = columns.repeat(self.keys.shape[1], 1)

    def place(
        self, positions: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None
    ) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S"] | None]:
        """Note the places of the next T positions; return those of all S = length + T.

        Call `note_places` before. What was cached without a document belongs to document 0.
        """
        assert self.positions is not None
        self.require_room(*positions.shape)
        end = self.length + positions.shape[1]
        self.positions[:, self.length : end] = positions
        if documents is not None:
            if self.documents is None:
                self.documents = torch.zeros_like(self.positions)
            self.documents[:, self.length : end] = documents
        return self.positions[:, :end], None if self.documents is None else self.documents[:, :end]

    def advance(self, positions: int) -> None:
        """Count the positions that every layer has now written."""
        self.length += positions

    def crop(self, length: int) -> None:
        """Forget every position from `length` on. The encoded source, if there is one, stays."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} positions to {length}")
        self.length = length
        self.shared_length = min(self.shared_length, length)

    def prefix(self, row: int, length: int) -> Prefix:
        """A copy of the first `length` positions of a row, which must have no padding there."""
        if not 0 < length <= self.length:
            raise ValueError(f"a cache of {self.length} positions has no beginning of {length}")
        return Prefix(self.keys[:, row, :, :length].clone(), self.values[:, row, :, :length].clone())

    def adopt(self, prefix: Prefix, padding: Int[Tensor, " B"] | None = None) -> None:
        """Begin every row of an empty cache with what another row has read.

        padding: columns before each row's text. So many fewer positions of the prefix fit behind them into its
        length, if any; padding between the two would come between texts and what a sliding window shows them.
        """
        if self.length:
            raise ValueError(f"the cache already holds {self.length} positions; crop it to 0 first")
        self.require_room(self.keys.shape[1], prefix.length)
        if padding is None:
            self.keys[:, :, :, : prefix.length] = prefix.keys[:, None]
            self.values[:, :, :, : prefix.length] = prefix.values[:, None]
        else:
            for row, skipped in enumerate(padding.clamp(max=prefix.length).tolist()):
                kept = prefix.first(prefix.length - skipped)
                self.keys[:, row, :, skipped : prefix.length] = kept.keys
                self.values[:, row, :, skipped : prefix.length] = kept.values
            columns = torch.arange(prefix.length, device=padding.device) - padding[:, None]
            self.note_places(padding.device)
            self.place(columns.clamp(min=0), torch.where(columns < 0, -1, 0))
        self.length = prefix.length

    def reorder(self, rows: Int[Tensor, " B"] | Sequence[int]) -> None:
        """Let row i continue what row rows[i] had seen (beam search, pruning finished rows).

        What is filled moves, in place where there are as many rows as before. What rows have in common stays where
        each takes the place of one of its origin: beams that swap leave their prompt and its source alone.
        """
        index = torch.as_tensor(rows, device=self.keys.device)
        if self.origins is None:
            origins, shared = torch.arange(self.keys.shape[1], device=index.device), self.length
        else:
            origins, shared = self.origins, self.shared_length
        are_alike = torch.equal(origins[index], origins)
        start = shared if are_alike else 0
        self.keys = self._reordered(self.keys, index, start)
        self.values = self._reordered(self.values, index, start)
        self.positions = None if self.positions is None else self.positions.index_select(0, index)
        self.documents = None if self.documents is None else self.documents.index_select(0, index)
        if not are_alike:
            self.cross = None if self.cross is None else self.cross.reordered(index)
            self.origins, self.shared_length = origins[index], shared

    def _reordered(
        self, tensor: Float[Tensor, "L B K S E"], index: Int[Tensor, " B_new"], start: int
    ) -> Float[Tensor, "L B_new K S E"]:
        """The rows from `start` on where the index says; one layer at a time, so that the copy between is small."""
        layers, rows, *shape = tensor.shape
        moved = tensor if len(index) == rows else tensor.new_zeros(layers, len(index), *shape)
        for layer, to in zip(tensor, moved, strict=True):
            to[:, :, start : self.length] = layer[:, :, start : self.length].index_select(0, index)
        return moved

    def require_room(self, rows: int, new: int) -> None:
        """Raise ValueError unless `new` positions of so many rows can be appended."""
        if rows != self.keys.shape[1]:
            raise ValueError(
                f"the cache holds {self.keys.shape[1]} rows and the input has {rows}; "
                "allocate one for this batch size or reorder its rows"
            )
        end = self.length + new
        if end > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} positions and {end} are needed; "
                "allocate a longer one with new_cache(batch_size, max_length) or crop it"
            )
