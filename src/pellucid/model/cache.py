"""The key/value cache: preallocated tensors and a length, handed to the model as an argument. No policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(eq=False)
class KVCache:
    """Keys and values of the positions seen so far, for every layer.

    keys, values: [layers, B, K, max_length, E]; the first `length` positions are filled. Memory in bytes:
    2 · layers · B · K · max_length · E · bytes of the dtype.
    """

    keys: Float[Tensor, "L B K S E"]
    values: Float[Tensor, "L B K S E"]
    length: int = 0

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
        return 2 * self.keys.numel() * self.keys.element_size()

    def append(
        self, layer: int, keys: Float[Tensor, "B K T E"], values: Float[Tensor, "B K T E"]
    ) -> tuple[Float[Tensor, "B K S E"], Float[Tensor, "B K S E"]]:
        """Write T new positions of one layer after the filled ones; return all S = length + T of them.

        The length itself moves once for all layers, by `advance`. Raises ValueError when the cache is full,
        or when its rows are not those of the input.
        """
        if keys.shape[0] != self.keys.shape[1]:
            raise ValueError(
                f"the cache holds {self.keys.shape[1]} rows and the input has {keys.shape[0]}; "
                "allocate one for this batch size or reorder its rows"
            )
        end = self.length + keys.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} positions and {end} are needed; "
                "allocate a longer one with new_cache(batch_size, max_length) or crop it"
            )
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, positions: int) -> None:
        """Count the positions that every layer has now written."""
        self.length += positions

    def crop(self, length: int) -> None:
        """Forget every position from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} positions to {length}")
        self.length = length

    def reorder(self, rows: Int[Tensor, " B"] | Sequence[int]) -> None:
        """Let row i continue what row rows[i] had seen (beam search, pruning finished rows)."""
        index = torch.as_tensor(rows, device=self.keys.device)
        self.keys = self.keys.index_select(1, index)
        self.values = self.values.index_select(1, index)
