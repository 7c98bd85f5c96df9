"""What every language model here can do, and the letters used for shapes everywhere.

Shape legend: B batch · T target time · S source time (cached positions included) · V vocabulary ·
D d_model · H heads · K key/value heads · E head_dim · F d_ff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.config import Config
from pellucid.model.cache import KVCache

Role = Literal["embedding", "position", "matrix", "residual_matrix", "head", "gain", "bias"]
"""What a parameter is for. Initial weights and weight decay are decided by role, never by name."""


@dataclass(frozen=True)
class Hidden:
    """The first half of a forward pass: final normalised states and side losses as (sum, weight)."""

    states: Float[Tensor, "B T D"]
    auxiliary: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class LanguageModel(Protocol):
    """The seam between a model and everything that trains, scores or samples it."""

    @property
    def config(self) -> Config: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_seq_len(self) -> int: ...

    def hidden(
        self, input_ids: Int[Tensor, "B T"], *, cache: KVCache | None = None, recompute: bool = False
    ) -> Hidden:
        """States before the head. With `recompute`, activations inside blocks are not stored for backward."""
        ...

    def head_weight(self) -> Float[Tensor, "V D"]:
        """The matrix that turns states into logits; a loss may use it without building all logits."""
        ...

    def head(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]: ...

    def new_cache(
        self, batch_size: int, max_length: int | None = None, *, dtype: torch.dtype | None = None
    ) -> KVCache: ...

    def parameter_roles(self) -> dict[str, Role]: ...
