"""A stack of blocks with its position scheme and final norm: a decoder, an encoder, or either half of both."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from pellucid.config import Config
from pellucid.model.attention import AttentionConfig
from pellucid.model.block import Block, Layout
from pellucid.model.cache import KVCache
from pellucid.model.dropout import DropoutRate, drop
from pellucid.model.feedforward import FeedForwardConfig, SwiGLUConfig
from pellucid.model.interface import Hidden, Recompute
from pellucid.model.kernels import AttentionContext, block_mask, wants_blocks
from pellucid.model.masks import Mask
from pellucid.model.norms import NormConfig, RMSNormConfig
from pellucid.model.one_position import run_blocks
from pellucid.model.places import Places
from pellucid.model.positions import Angles, Position, PositionConfig, RotaryPositionConfig


class StackConfig(Config):
    """What decoders and encoder-decoders have in common."""

    vocab_size: int | None = Field(default=None, gt=0)
    """Number of token ids. Left out in a run: the tokenizer's."""
    d_model: int = Field(default=256, gt=0)
    """Width of the residual stream."""
    num_heads: int = Field(default=4, gt=0)
    """Number of query heads."""
    num_kv_heads: int | None = Field(default=None, gt=0)
    """Number of key/value heads; a divisor of num_heads. Left out: num_heads (multi-head attention)."""
    head_dim: int | None = Field(default=None, gt=0)
    """Features of a head. Left out: d_model / num_heads."""
    max_seq_len: int = Field(default=1024, gt=0)
    """Longest sequence, in tokens."""
    block: Layout = "pre_norm"
    """Where norms and residuals sit: before each branch, after it, around it, or one norm for parallel branches."""
    norm: NormConfig = RMSNormConfig()
    """The norm of the blocks and before the head."""
    position: PositionConfig = RotaryPositionConfig()
    """How the model knows where a token stands."""
    attention: AttentionConfig = AttentionConfig()
    """How heads attend."""
    feed_forward: FeedForwardConfig = SwiGLUConfig()
    """The second branch of each block."""
    bias: bool = False
    """Whether linear layers have biases."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of features zeroed, in training, in the embeddings and in what each branch adds."""
    tie_embeddings: bool = True
    """Whether the head uses the token table."""
    scale_embeddings: bool = False
    """Whether token embeddings are multiplied by sqrt(d_model), as in Gemma."""
    vocab_multiple: int = Field(default=1, gt=0)
    """Rows of the token table and the head are padded to a multiple of this, for speed; the logits stay the same."""
    logit_softcap: float | None = Field(default=None, gt=0)
    """Bound that logits approach smoothly. Left out: none."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not divisible by num_heads ({self.num_heads}); "
                "change one of them or give head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) is not a multiple of num_kv_heads ({self.num_kv_heads}); "
                "each key/value head serves the same number of query heads"
            )
        if self.attention.qk_norm and self.norm.kind == "none":
            raise ValueError(
                "attention.qk_norm uses the model's norm, and norm.kind is 'none'; change one of them"
            )
        with torch.device("meta"):  # each part refuses what it cannot be built from
            build_stack(self, num_layers=1, is_causal=True)
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.d_model // self.num_heads

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table: vocab_size rounded up to a multiple of vocab_multiple."""
        if self.vocab_size is None:
            raise ValueError(
                f"{type(self).__name__} needs vocab_size to build a model, e.g. vocab_size=50257"
            )
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


class StackParts(Protocol):
    """What `run_stack` works on."""

    @property
    def position(self) -> Position: ...
    @property
    def dropout(self) -> DropoutRate: ...
    @property
    def blocks(self) -> nn.ModuleList: ...
    @property
    def final_norm(self) -> nn.Module | None: ...


def build_stack(
    config: StackConfig, num_layers: int, *, is_causal: bool, reads_source: bool = False
) -> tuple[Position, nn.ModuleList, nn.Module | None]:
    """(position, blocks, final norm); with post-norm blocks, the last of them has normalised already."""
    sizes = {"num_heads": config.num_heads, "head_dim": config.head_size}

    def attention() -> Any:
        return config.attention.build(
            config.d_model, num_kv_heads=config.kv_heads, norm=config.norm, bias=config.bias, **sizes
        )

    norm = partial(config.norm.build, config.d_model)
    position = config.position.build(
        d_model=config.d_model, max_seq_len=config.max_seq_len, is_causal=is_causal, **sizes
    )
    blocks = nn.ModuleList(
        Block(
            attention(),
            config.feed_forward.build(config.d_model, bias=config.bias),
            norm,
            layout=config.block,
            cross_attention=attention() if reads_source else None,
            dropout=config.dropout,
        )
        for _ in range(num_layers)
    )
    return position, blocks, None if config.block == "post_norm" else norm()


class Stack(nn.Module):
    """Either half of an encoder-decoder: `run_stack` as a module."""

    def __init__(
        self, config: StackConfig, num_layers: int, *, is_causal: bool, reads_source: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.dropout = DropoutRate(config.dropout)
        self.position, self.blocks, self.final_norm = build_stack(
            config, num_layers, is_causal=is_causal, reads_source=reads_source
        )

    def forward(self, x: Float[Tensor, "B T D"], places: Places, mask: Mask, **how: Any) -> Hidden:
        return run_stack(self, self.config, x, places, mask, training=self.training, **how)


def run_stack(
    parts: StackParts,
    config: StackConfig,
    x: Float[Tensor, "B T D"],
    places: Places,
    mask: Mask,
    *,
    training: bool,
    source: Float[Tensor, "B S D"] | None = None,
    source_context: AttentionContext | None = None,
    cache: KVCache | None = None,
    recompute: Recompute = "none",
) -> Hidden:
    """Embedded ids → final normalised states. What every layer shares is made once, before the first."""
    if cache is not None and recompute != "none":
        raise ValueError("`recompute` is for training, which has no cache; leave one of them out")
    x = parts.position.embed(x, places.query_positions)
    x = drop(x, parts.dropout.now(training=training))
    contexts = _contexts(parts, config, x, places, mask, training)
    auxiliary: dict[str, tuple[Tensor, Tensor]] = {}
    stepped = None
    if cache is not None and not training:
        stepped = run_blocks(parts, config.attention, x, contexts, source_context, cache)
    if stepped is not None:
        x = stepped
    for layer, block in enumerate(parts.blocks if stepped is None else ()):
        run = partial(_CHECKPOINTS[recompute], block) if recompute != "none" else block
        x, added = run(
            x,
            contexts[config.attention.window_of(layer)],
            source=source,
            source_context=source_context,
            cache=cache,
            layer=layer,
        )
        for name, (total, weight) in added.items():
            before = auxiliary.get(name)
            auxiliary[name] = (total, weight) if before is None else (before[0] + total, weight)
    if cache is not None:
        cache.advance(x.shape[1])
    return Hidden(x if parts.final_norm is None else parts.final_norm(x), auxiliary)


def _contexts(
    parts: StackParts, config: StackConfig, x: Tensor, places: Places, mask: Mask, training: bool
) -> dict[int | None, AttentionContext]:
    """What attention needs besides x, for each window that some layer has."""
    angles = parts.position.angles(places.query_positions)
    if angles is not None and x.dtype != torch.float64:
        angles = (angles[0].float(), angles[1].float())
    bias = parts.position.bias(places.query_positions, places.key_positions)
    if bias is not None and x.dtype != torch.float64:
        bias = bias.float()
    queries, keys = x.shape[1], places.key_positions.shape[-1]
    return {
        window: attention_context(
            config.attention,
            mask.within(window),
            queries,
            keys,
            x.device,
            training=training,
            bias=bias,
            position=parts.position,
            angles=angles,
        )
        for window in {config.attention.window_of(layer): None for layer in range(len(parts.blocks))}
    }


def attention_context(
    attention: AttentionConfig,
    mask: Mask,
    queries: int,
    keys: int,
    device: torch.device,
    *,
    training: bool,
    bias: Float[Tensor, "*B H T S"] | None = None,
    position: Position | None = None,
    angles: Angles = None,
) -> AttentionContext:
    """The mask written out in the form that the kernel will want, if it wants one."""
    uses_blocks = wants_blocks(
        attention.kernel,
        device,
        is_plain=mask.is_plain,
        has_bias=bias is not None,
        softcap=attention.softcap,
        dropout=attention.dropout if training else 0.0,
    )
    return AttentionContext(
        mask=mask,
        dense=None if uses_blocks else mask.dense(queries, keys, device),
        bias=bias,
        blocks=block_mask(mask, queries, keys, device) if uses_blocks else None,
        position=position,
        angles=angles,
    )


# Activation checkpointing ---------------------------------------------------------------------------

_MATRIX_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._grouped_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.pellucid.short_attention.default,
}


def _keep_matrix_products(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    is_costly = operation in _MATRIX_PRODUCTS
    return CheckpointPolicy.MUST_SAVE if is_costly else CheckpointPolicy.PREFER_RECOMPUTE


_CHECKPOINTS = {
    "full": partial(checkpoint, use_reentrant=False),
    "selective": partial(
        checkpoint,
        use_reentrant=False,
        context_fn=partial(create_selective_checkpoint_contexts, _keep_matrix_products),
    ),
}
"""Ways to run a block so that the backward pass computes what was not kept again.

Source: Chen et al. 2016, arXiv:1604.06174; selective: Korthikanti et al. 2022, arXiv:2205.05198.
"""
