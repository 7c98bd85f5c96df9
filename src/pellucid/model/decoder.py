"""DecoderLM: embedding → blocks → norm → head."""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pellucid.config import Config
from pellucid.model import decoding
from pellucid.model.attention import Attention
from pellucid.model.block import Block
from pellucid.model.cache import KVCache
from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.feedforward import FeedForwardConfig, SwiGLUConfig
from pellucid.model.init import initialise
from pellucid.model.interface import Hidden, Role
from pellucid.model.norms import NormConfig, RMSNormConfig
from pellucid.model.positions import Position, PositionConfig, RotaryPositionConfig


class DecoderConfig(Config):
    """A decoder-only transformer. What is left out is the modern default: RMSNorm, RoPE, SwiGLU, tied head."""

    kind: Literal["decoder"] = "decoder"
    vocab_size: int | None = Field(default=None, gt=0)
    """Number of token ids. Left out in a run: the tokenizer's."""
    d_model: int = Field(default=256, gt=0)
    """Width of the residual stream."""
    num_layers: int = Field(default=4, gt=0)
    """Number of blocks."""
    num_heads: int = Field(default=4, gt=0)
    """Number of query heads."""
    num_kv_heads: int | None = Field(default=None, gt=0)
    """Number of key/value heads; a divisor of num_heads. Left out: num_heads (multi-head attention)."""
    head_dim: int | None = Field(default=None, gt=0)
    """Features of a head. Left out: d_model / num_heads."""
    max_seq_len: int = Field(default=1024, gt=0)
    """Longest sequence, in tokens."""
    norm: NormConfig = RMSNormConfig()
    """The norm before each branch and before the head."""
    position: PositionConfig = RotaryPositionConfig()
    """How the model knows where a token stands."""
    feed_forward: FeedForwardConfig = SwiGLUConfig()
    """The second branch of each block."""
    bias: bool = False
    """Whether linear layers have biases."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of features zeroed, in training, in the embeddings and in what each branch adds."""
    tie_embeddings: bool = True
    """Whether the head uses the token table."""

    @model_validator(mode="after")
    def _check(self) -> Self:
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
        if isinstance(self.position, RotaryPositionConfig) and self.head_size % 2:
            raise ValueError(
                f"position.kind 'rope' turns pairs of features, so the head size ({self.head_size}, from "
                "head_dim or d_model / num_heads) must be even"
            )
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.d_model // self.num_heads

    def build(self, *, seed: int = 0) -> DecoderLM:
        return DecoderLM(self, seed=seed)


class DecoderLM(nn.Module):
    """A decoder-only transformer language model.

    `model(input_ids)` gives logits [B, T, V]; `hidden` and `head` are its two halves; `generate` continues a
    prompt. Initial weights depend on `seed` alone (see init.py).  Source: Radford et al. 2018; the default
    parts are those of Llama (Touvron et al. 2023, arXiv:2302.13971).
    """

    def __init__(self, config: DecoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError(
                "DecoderConfig needs vocab_size to build a model, e.g. DecoderConfig(vocab_size=50257)"
            )
        self.config = config
        self.vocab_size, self.max_seq_len = config.vocab_size, config.max_seq_len
        d_model, head_dim = config.d_model, config.head_size

        self.embedding = TokenEmbedding(config.vocab_size, d_model)
        self.position: Position = config.position.build(d_model, head_dim, config.max_seq_len)
        self.blocks = nn.ModuleList(
            Block(
                Attention(d_model, config.num_heads, config.kv_heads, head_dim, bias=config.bias),
                config.feed_forward.build(d_model, bias=config.bias),
                attention_norm=config.norm.build(d_model),
                feed_forward_norm=config.norm.build(d_model),
                dropout=config.dropout,
            )
            for _ in range(config.num_layers)
        )
        self.final_norm = config.norm.build(d_model)
        self.output = None if config.tie_embeddings else nn.Linear(d_model, config.vocab_size, bias=False)
        initialise(self, self.parameter_roles(), num_residual_branches=2 * config.num_layers, seed=seed)

    def hidden(
        self, input_ids: Int[Tensor, "B T"], *, cache: KVCache | None = None, recompute: bool = False
    ) -> Hidden:
        """Normalised states [B, T, D]. A cache is read and extended; `recompute` trades time for memory."""
        start = cache.length if cache is not None else 0
        end = start + input_ids.shape[1]
        if end > self.max_seq_len:
            raise ValueError(
                f"{end} positions (cached ones included) are more than max_seq_len ({self.max_seq_len}); "
                "shorten the input or build the model with a larger max_seq_len"
            )
        positions = torch.arange(start, end, device=input_ids.device)
        x = self.position.embed(self.embedding(input_ids), positions)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        angles = self.position.angles(positions)
        if angles is not None and x.dtype != torch.float64:
            angles = (angles[0].float(), angles[1].float())
        for layer, block in enumerate(self.blocks):
            if recompute:
                x = checkpoint(block, x, self.position, angles, cache, layer, use_reentrant=False)
            else:
                x = block(x, self.position, angles, cache, layer)
        if cache is not None:
            cache.advance(input_ids.shape[1])
        return Hidden(self.final_norm(x))

    def head_weight(self) -> Float[Tensor, "V D"]:
        return self.embedding.table if self.output is None else self.output.weight

    def head(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        return F.linear(states, self.head_weight())

    def forward(self, input_ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        return self.head(self.hidden(input_ids, cache=cache).states)

    def new_cache(
        self, batch_size: int, max_length: int | None = None, *, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache for `max_length` positions (default: max_seq_len) on the model's device."""
        table = self.embedding.table
        return KVCache.allocate(
            num_layers=self.config.num_layers,
            batch_size=batch_size,
            num_kv_heads=self.config.kv_heads,
            max_length=self.max_seq_len if max_length is None else max_length,
            head_dim=self.config.head_size,
            device=table.device,
            dtype=dtype or table.dtype,
        )

    def generate(
        self,
        prompt: Int[Tensor, "B T"] | Int[Tensor, " T"],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        stop_id: int | None = None,
        seed: int = 0,
    ) -> Int[Tensor, "B T_out"] | Int[Tensor, " T_out"]:
        """The prompt's ids followed by up to max_new_tokens new ones, in the prompt's shape.

        Greedy unless a temperature above 0 is given. A row that has produced `stop_id` goes on with it;
        decoding ends when every row has. Dropout is off meanwhile. The generate package adds everything else
        around the same loop.
        """
        pick = decoding.picker(temperature, top_k, decoding.generator_for(self.embedding.table.device, seed))
        rows = prompt if prompt.dim() == 2 else prompt[None]
        new = list(decoding.decode(self, rows, max_new_tokens, pick, stop_id=stop_id))
        ids = torch.cat([rows, *(n[:, None] for n in new)], dim=1)
        return ids if prompt.dim() == 2 else ids[0]

    def parameter_roles(self) -> dict[str, Role]:
        """The role of each parameter by its name."""
        return {name: _role(name, parameter) for name, parameter in self.named_parameters()}


def _role(name: str, parameter: nn.Parameter) -> Role:
    owner, _, leaf = name.rpartition(".")
    if owner == "embedding":
        return "embedding"
    if owner == "position":
        return "position"
    if owner == "output":
        return "head"
    if parameter.dim() == 1:
        return "gain" if leaf == "gain" else "bias"
    return "residual_matrix" if owner.endswith(("attention.output", "feed_forward.down")) else "matrix"
