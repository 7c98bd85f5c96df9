"""What a model costs before it is built: parameters, FLOPs, and the bytes of training and of generation.

Every function takes a built model and looks only at its shapes, so `on_meta(config)`, which allocates
nothing, serves as well as a real one, and a new part is counted as it is.  Letters as in interface.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pellucid.model.decoder import DecoderConfig, DecoderLM
from pellucid.model.interface import Role


def on_meta(config: DecoderConfig) -> DecoderLM:
    """The model of a config on the meta device: every name and shape, no memory."""
    with torch.device("meta"):
        return config.build()


@dataclass(frozen=True)
class Parameters:
    """Parameter counts by role; a tied head counts once, as the embedding."""

    by_role: Mapping[Role, int]

    @property
    def total(self) -> int:
        return sum(self.by_role.values())

    @property
    def non_embedding(self) -> int:
        """Without token table, positions and free head: the N of scaling laws (Kaplan et al. 2020)."""
        return sum(n for role, n in self.by_role.items() if role not in ("embedding", "position", "head"))


@dataclass(frozen=True)
class TokenFlops:
    """Floating-point operations of one token: matrix products only, a multiply and an add being two."""

    matrices: int
    """2 · (weights of the layers' matrices and of the head)."""
    attention: int
    """4 · layers · S · H · E: q kᵀ and its product with v, over all S positions: the mask saves nothing."""

    @property
    def forward(self) -> int:
        return self.matrices + self.attention

    @property
    def training(self) -> int:
        """Forward and backward: each product of the forward has two of its size in the backward."""
        return 3 * self.forward


@dataclass(frozen=True)
class TrainingStateBytes:
    """Memory that training needs at every moment, whatever the batch."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class ActivationBytes:
    """An estimate of what a micro-batch adds at its peak."""

    hidden: int
    """Kept between the forward and the backward pass, up to the head's input."""
    logits: int
    """One float32 copy of the logits; a loss that is not chunked needs the same again for their gradient."""

    @property
    def total(self) -> int:
        return self.hidden + self.logits


def count_parameters(model: DecoderLM) -> Parameters:
    """Parameters in total, by role, and without embeddings."""
    roles, counts = model.parameter_roles(), Counter[Role]()
    for name, parameter in model.named_parameters():
        counts[roles[name]] += parameter.numel()
    return Parameters(dict(counts))


def count_token_flops(model: DecoderLM, seq_len: int) -> TokenFlops:
    """FLOPs of one token in a sequence of seq_len."""
    config, counts = model.config, count_parameters(model).by_role
    weights = counts["matrix"] + counts["residual_matrix"] + model.head_weight().numel()
    attention = 4 * config.num_layers * seq_len * config.num_heads * config.head_size
    return TokenFlops(matrices=2 * weights, attention=attention)


def count_training_state(
    model: DecoderLM, *, weight_bytes: int = 4, gradient_bytes: int = 4, moment_bytes: int = 4
) -> TrainingStateBytes:
    """Weights, gradients and AdamW's two moments, at the given bytes an element (defaults: float32)."""
    count = count_parameters(model).total
    return TrainingStateBytes(count * weight_bytes, count * gradient_bytes, 2 * count * moment_bytes)


def count_cache_bytes(
    model: DecoderLM, batch_size: int, length: int, dtype: torch.dtype = torch.float32
) -> int:
    """Bytes of the key/value cache for B sequences of length S: 2 · layers · B · K · S · E elements."""
    config = model.config
    return 2 * config.num_layers * batch_size * config.kv_heads * length * config.head_size * dtype.itemsize


def estimate_activation_bytes(
    model: DecoderLM,
    batch_size: int,
    seq_len: int,
    *,
    element_bytes: int = 4,
    recompute: bool = False,
    keeps_scores: bool = False,
) -> ActivationBytes:
    """What eager autograd keeps for backward; a compiled model keeps less, because it fuses operations.

    A token in a block: the input and the normalised input of both norms, 4 D in w bytes, and, in e bytes,
    both norms' outputs, q, k, v, the mixed values, and the results of the feed-forward layer's widening
    matrices (W wide together) before and after their nonlinearity:

        block = w · 4 D + e · (2 D + 2 H E + 2 K E + 2 W)        final norm = w · 2 D + e · D
        hidden = B · T · (layers · block + final norm)
        hidden with recompute = B · T · (layers · w · D + block + final norm)
        logits = B · T · V · 4

    e is `element_bytes` (2 under autocast to bf16), w = max(e, 4): the residual stream stays in float32.
    `keeps_scores` is for an attention kernel that keeps its probabilities and a copy of k and v for every
    query head, as short_attention.py does: a block has e · (H T + 2 (H - K) E) more.
    Left out: dropout masks and autocast's copies of the weights.
    """
    config, roles, wide = model.config, model.parameter_roles(), max(element_bytes, 4)
    widening = sum(
        parameter.shape[0]
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.0.feed_forward.") and roles[name] == "matrix"
    )
    heads, kv_heads, head_size = config.num_heads, config.kv_heads, config.head_size
    narrow = 2 * (config.d_model + (heads + kv_heads) * head_size + widening)
    if keeps_scores:
        narrow += heads * seq_len + 2 * (heads - kv_heads) * head_size
    block = wide * 4 * config.d_model + element_bytes * narrow
    final_norm = (2 * wide + element_bytes) * config.d_model
    kept = config.num_layers * wide * config.d_model + block if recompute else config.num_layers * block
    tokens = batch_size * seq_len
    return ActivationBytes(hidden=tokens * (kept + final_norm), logits=tokens * model.vocab_size * 4)
