"""What a model costs before it is built: parameters, FLOPs, and the bytes of training and of generation.

Every function takes a built model and looks only at its shapes, so `on_meta(config)`, which allocates
nothing, serves as well as a real one, and a new part is counted as it is.  Letters as in interface.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from pellucid.model import ModelConfig, Recompute, Transformer
from pellucid.model.attention import Attention
from pellucid.model.block import Block
from pellucid.model.encoder_decoder import EncoderDecoderLM
from pellucid.model.feedforward import MoE
from pellucid.model.interface import Role
from pellucid.model.norms import LayerNorm, NoNorm
from pellucid.model.stack import StackParts


def on_meta(config: ModelConfig) -> Transformer:
    """The model of a config on the meta device: every name and shape, no memory."""
    with torch.device("meta"):
        return config.build()


@dataclass(frozen=True)
class _Stack:
    """Blocks, the tokens that they run over, and those of the source that they read."""

    parts: StackParts
    tokens: int
    source: int = 0

    @property
    def blocks(self) -> list[Block]:
        return list(cast(Iterable[Block], self.parts.blocks))

    def attentions(self, block: Block) -> list[tuple[Attention, int]]:
        """Each attention of a block, with the number of its keys."""
        cross = block.cross_attention
        return [(block.attention, self.tokens), *([] if cross is None else [(cross, self.source)])]


def _stacks(model: Transformer, seq_len: int, source_len: int | None) -> list[_Stack]:
    """A decoder alone, or the encoder and then the decoder. source_len left out is seq_len."""
    if isinstance(model, EncoderDecoderLM):
        source = seq_len if source_len is None else source_len
        return [_Stack(model.encoder, source), _Stack(model.decoder, seq_len, source)]
    if source_len is not None:
        raise ValueError(f"source_len ({source_len}) is an encoder-decoder's; a decoder reads no source")
    return [_Stack(model, seq_len)]


# Parameters -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameters:
    """Parameter counts by role; a tied head counts once, as the embedding."""

    by_role: Mapping[Role, int]
    idle: int
    """Those of the experts that a token does not go through; 0 without a mixture of experts."""

    @property
    def total(self) -> int:
        return sum(self.by_role.values())

    @property
    def active(self) -> int:
        """Those that work on one token: total - Σ over layers of (X - k) · an expert's weights."""
        return self.total - self.idle

    @property
    def non_embedding(self) -> int:
        """Without token tables, positions and free head: the N of scaling laws (Kaplan et al. 2020)."""
        return sum(n for role, n in self.by_role.items() if role not in ("embedding", "position", "head"))


def count_parameters(model: Transformer) -> Parameters:
    """Parameters in total, by role, without embeddings, and those that work on one token."""
    roles, counts = model.parameter_roles(), Counter[Role]()
    for name, parameter in model.named_parameters():
        counts[roles[name]] += parameter.numel()
    layers = [block.feed_forward for block in model.all_blocks]
    return Parameters(dict(counts), sum(_weights(layer) - _weights_per_token(layer) for layer in layers))


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)


def _weights_per_token(feed_forward: nn.Module) -> int:
    """Weights that one token is multiplied by: all matrices, or the router's and those of k experts."""
    is_sparse = isinstance(feed_forward, MoE)
    return feed_forward.matmul_weights_per_token if is_sparse else _weights(feed_forward)


# FLOPs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a forward pass: matrix products only, a multiply and an add being two."""

    matrices: int
    """Σ over the layers' matrices and the head of 2 · tokens · weights."""
    attention: int
    """Σ over attentions of 4 · T · S · H · E: q kᵀ and its product with v, for all keys: a mask saves nothing."""

    @property
    def forward(self) -> int:
        return self.matrices + self.attention

    @property
    def training(self) -> int:
        """Forward and backward: each product of the forward has two of its size in the backward."""
        return 3 * self.forward


def count_flops(model: Transformer, seq_len: int, source_len: int | None = None) -> Flops:
    """FLOPs of a forward pass over one sequence of T = seq_len; for an encoder-decoder, over a source of S besides.

    A decoder's matrices and its head see T tokens. An encoder's see S; in the decoder that reads it, keys and
    values of cross-attention are made of S tokens, everything else of T. The head counts with all rows of its
    table, padding (`vocab_multiple`) included. In a mixture of experts a token costs 2 · (X · D + k · 3 · D · F),
    the router and k SwiGLU experts, whichever those are.
    source_len left out is seq_len.  Raises ValueError where a decoder is given one.
    """
    matrices, attention = 2 * seq_len * model.head_parameters().weight.numel(), 0
    for stack in _stacks(model, seq_len, source_len):
        for block in stack.blocks:
            matrices += 2 * stack.tokens * _weights_per_token(block.feed_forward)
            for part, keys in stack.attentions(block):
                matrices += 2 * stack.tokens * (part.query.weight.numel() + part.output.weight.numel())
                matrices += 2 * keys * (part.key.weight.numel() + part.value.weight.numel())
                attention += 4 * stack.tokens * keys * part.num_heads * part.head_dim
    return Flops(matrices, attention)


def count_token_flops(model: Transformer, seq_len: int) -> Flops:
    """FLOPs of one token in a sequence of seq_len: an even share of the sequence's.

    For an encoder-decoder: of one target token, with its share of a source as long as the target.
    """
    flops = count_flops(model, seq_len)
    return Flops(flops.matrices // seq_len, flops.attention // seq_len)


# Bytes ------------------------------------------------------------------------------------------------


def count_cache_bytes(
    model: Transformer,
    batch_size: int,
    length: int,
    dtype: torch.dtype = torch.float32,
    *,
    source_len: int | None = None,
) -> int:
    """Bytes of the key/value cache for B sequences: 2 · layers · B · K · E · length elements.

    An encoder-decoder's decoder layers each keep 2 · B · K · E · source_len besides, for cross-attention;
    source_len left out is `length`.
    """
    decoder = _stacks(model, length, source_len)[-1]
    keys_and_values = sum(
        2 * keys * part.num_kv_heads * part.head_dim
        for block in decoder.blocks
        for part, keys in decoder.attentions(block)
    )
    return batch_size * keys_and_values * dtype.itemsize


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


def estimate_activation_bytes(
    model: Transformer,
    batch_size: int,
    seq_len: int,
    source_len: int | None = None,
    *,
    element_bytes: int = 4,
    recompute: Recompute = "none",
    score_bytes: int = 0,
) -> ActivationBytes:
    """What eager autograd keeps for backward; a compiled model keeps less, because it fuses operations.

        hidden = B · (Σ over blocks of stored + Σ over final norms of T · (2 w + e) · D + again)
        logits = B · T · V · 4

    recompute    stored of a block                        again
    none         everything (`_everything`)               0
    full         its input: T · w · D                     everything of the largest block
    selective    its input and `_products`                the same

    e is `element_bytes` (2 under autocast to bf16), w = max(e, 4): the residual stream stays in float32.
    `score_bytes` is what the attention kernel keeps of each of the B · H · T · S scores: 0 where it is fused,
    e in kernels/short.py.
    Left out: masks, of dropout and of attention, position biases, autocast's copies of the weights.
    """
    sizes = _Sizes(element_bytes, max(element_bytes, 4), score_bytes)
    hidden, again = 0, 0
    for stack in _stacks(model, seq_len, source_len):
        for block in stack.blocks:
            everything = _everything(stack, block, sizes)
            if recompute == "none":
                hidden += everything
                continue
            hidden += stack.tokens * sizes.wide * _d_model(block)
            hidden += _products(stack, block, sizes) if recompute == "selective" else 0
            again = max(again, everything)
        last = sizes.narrow + sizes.wide * _kept_by_norm(stack.parts.final_norm)
        hidden += stack.tokens * last * _d_model(stack.blocks[-1])
    logits = batch_size * seq_len * model.vocab_size * 4
    return ActivationBytes(hidden=batch_size * (hidden + again), logits=logits)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of an element: in matrix products (e), in the residual stream (w), of what is kept of a score."""

    narrow: int
    wide: int
    score: int


def _everything(stack: _Stack, block: Block, sizes: _Sizes) -> int:
    """What a block keeps of one sequence, in bytes.

    Of a token: each norm's input and normalised input, w · 2 D; what matrices read of the norms before them,
    e · D, once where e = w and else once a matrix, each casting for itself; in the feed-forward layer
    e · 2 W, the results of its widening matrices (W wide together) before and after the nonlinearity.
    Of an attention: queries and mixed values, e · 2 H E a query, keys and values, e · 2 K E a key; for QK-norm
    what any norm keeps; where scores are kept, those, and keys and values once a query head.
    """
    d_model, casts = _d_model(block), sizes.narrow < sizes.wide
    norms = {name: norm for name, norm in block.named_children() if name.endswith("_norm")}
    readers, inside = _feed_forward_sizes(block.feed_forward)
    readers += 3 + (block.cross_attention is not None)
    if not casts:
        readers = sum(not name.endswith("_out_norm") for name in norms)
    normed = sum(_kept_by_norm(norm) for norm in norms.values())
    kept = stack.tokens * (sizes.wide * normed * d_model + sizes.narrow * (readers * d_model + inside))
    for part, keys in stack.attentions(block):
        queries = stack.tokens * part.num_heads * part.head_dim
        answers = keys * part.num_kv_heads * part.head_dim
        kept += (sizes.narrow * 2 + sizes.wide * _kept_by_norm(part.query_norm)) * (queries + answers)
        if sizes.score:
            copies = keys * (part.num_heads - part.num_kv_heads) * part.head_dim
            kept += sizes.score * part.num_heads * stack.tokens * keys + sizes.narrow * 2 * copies
    if casts:
        kept += sizes.narrow * 2 * stack.source * d_model  # the source, for keys and for values
    return kept


def _products(stack: _Stack, block: Block, sizes: _Sizes) -> int:
    """Bytes of the results of a block's matrix products over one sequence.

    Of a token: e · (W + D) in the feed-forward layer, and for each attention e · (2 H E + D) a query, e · 2 K E a
    key, and the scores where the kernel makes them.
    """
    d_model, (_, inside) = _d_model(block), _feed_forward_sizes(block.feed_forward)
    results = stack.tokens * (inside // 2 + d_model)
    for part, keys in stack.attentions(block):
        results += stack.tokens * (2 * part.num_heads * part.head_dim + d_model)
        results += 2 * keys * part.num_kv_heads * part.head_dim
        results += part.num_heads * stack.tokens * keys if sizes.score else 0
    return sizes.narrow * results


def _kept_by_norm(norm: nn.Module | None) -> int:
    """How many vectors: the input, and what the gain multiplies unless one kernel does it all."""
    if norm is None or isinstance(norm, NoNorm):
        return 0
    return 1 if isinstance(norm, LayerNorm) else 2


def _feed_forward_sizes(feed_forward: nn.Module) -> tuple[int, int]:
    """(matrices that read the layer's input, numbers that it keeps of a token besides that input).

    A mixture of experts keeps, for each of k experts, a copy of its input, 4 F inside and its result.
    The last matrix is the one called `down`, as for initial weights.
    """
    if isinstance(feed_forward, MoE):
        return 1, feed_forward.top_k * (4 * feed_forward.gate.shape[1] + 2 * feed_forward.gate.shape[2])
    widening = [
        parameter.shape[0]
        for name, parameter in feed_forward.named_parameters()
        if parameter.dim() > 1 and not name.startswith("down")
    ]
    return len(widening), 2 * sum(widening)


def _d_model(block: Block) -> int:
    return block.attention.query.in_features
