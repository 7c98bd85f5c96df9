"""What every language model here can do, and the letters used for shapes everywhere.

Shape legend: B batch · T target time · S source time (cached positions included) · V vocabulary ·
D d_model · H heads · K key/value heads · E head_dim · F d_ff · X experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model.cache import KVCache

Role = Literal["embedding", "position", "matrix", "residual_matrix", "head", "gain", "bias"]
"""What a parameter is for. Initial weights and weight decay are decided by role, never by name."""

Recompute = Literal["none", "full", "selective"]
"""Which activations inside blocks the backward pass computes again: none, all, or all but matrix products."""

Auxiliary = Mapping[str, tuple[Tensor, Tensor]]
"""Side losses by name, as (sum, weight), multiplied by their coefficients: each adds sum / weight to the loss."""


@dataclass(frozen=True)
class Hidden:
    """The first half of a forward pass: final normalised states and side losses."""

    states: Float[Tensor, "B T D"]
    auxiliary: Auxiliary = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """What turns states into logits: states · weightᵀ, the first vocab_size of them, soft-capped.

    The table may have more rows than there are ids (`vocab_multiple`). With a soft-cap c a logit z becomes
    c · tanh(z / c), so that it stays between -c and c.  Source: Gemma team 2024, arXiv:2408.00118, sec. 2.
    """

    weight: Float[Tensor, "V_padded D"]
    vocab_size: int
    softcap: float | None = None

    def logits(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        return finish_logits(F.linear(states, self.weight), self.vocab_size, self.softcap)


def finish_logits(
    products: Float[Tensor, "*rows V_padded"], vocab_size: int, softcap: float | None
) -> Float[Tensor, "*rows V"]:
    """Products of states with every row of a head's table → logits."""
    logits = products if products.shape[-1] == vocab_size else products[..., :vocab_size]
    return logits if softcap is None else soft_cap(logits, softcap)


def soft_cap(x: Float[Tensor, "*shape"], cap: float) -> Float[Tensor, "*shape"]:
    """Squash into (-cap, cap): cap · tanh(x / cap), nearly x where x is small against the cap."""
    return cap * torch.tanh(x / cap)


@dataclass(frozen=True)
class Start:
    """What decoding begins with: a cache, and the ids that the decoder reads into it first."""

    cache: KVCache
    ids: Int[Tensor, "B T"]
    documents: Int[Tensor, "B T"] | None
    """-1 where `ids` is padding; None without padding."""
    is_prefix: bool = False
    """Whether what is read at once is a prefix, seen in both directions."""


class LanguageModel(Protocol):
    """The seam between a model and everything that trains, scores or samples it."""

    @property
    def config(self) -> Config: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_seq_len(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def continues_prompt(self) -> bool:
        """Whether new ids follow the prompt in one sequence (a decoder), or answer it in another."""
        ...

    def hidden(self, input_ids: Int[Tensor, "B T"], *args: Any, **kwargs: Any) -> Hidden:
        """States before the head.

        Keywords: `cache` (a KVCache to read and extend), `recompute` (Recompute), and the inputs of a batch
        that the family takes: positions, documents, prefix_lengths, encoder_ids, encoder_documents.
        """
        ...

    def head_parameters(self) -> Head:
        """What turns states into logits; a loss may use it without building all logits."""
        ...

    def head(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]: ...

    def new_cache(
        self, batch_size: int, max_length: int | None = None, *, dtype: torch.dtype | None = None
    ) -> KVCache: ...

    def start(
        self,
        prompt: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        documents: Int[Tensor, "B T"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Start:
        """A cache for decoding after a prompt, and what is to be read into it.

        A decoder reads the prompt itself; an encoder-decoder has encoded the prompt, and its decoder reads
        its first id. `documents` is -1 where the prompt is padding.
        """
        ...

    def parameter_roles(self) -> dict[str, Role]: ...
