"""DecoderLM: embedding → blocks → norm → head."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pellucid.model import decoding
from pellucid.model.cache import KVCache
from pellucid.model.dropout import DropoutRate
from pellucid.model.init import initialise
from pellucid.model.interface import Hidden, Recompute, Start
from pellucid.model.language_model import TransformerLM, free_head
from pellucid.model.masks import Mask
from pellucid.model.places import locate
from pellucid.model.stack import StackConfig, build_stack, run_stack


class DecoderConfig(StackConfig):
    """A decoder-only transformer. What is left out is the modern default: RMSNorm, RoPE, SwiGLU, tied head."""

    kind: Literal["decoder"] = "decoder"
    num_layers: int = Field(default=4, gt=0)
    """Number of blocks."""
    prompt_mask: Literal["causal", "prefix"] | None = None
    """How generation reads a prompt; prefix: its ids see each other in both directions. Left out in a run: as
    data.objective trains it."""

    def build(self, *, seed: int = 0) -> DecoderLM:
        return DecoderLM(self, seed=seed)


class DecoderLM(TransformerLM):
    """A decoder-only transformer language model.

    `model(input_ids)` gives logits [B, T, V]; `hidden` and `head` are its two halves; `generate` continues a
    prompt. Initial weights depend on `seed` alone (see init.py).  Source: Radford et al. 2018; the default
    parts are those of Llama (Touvron et al. 2023, arXiv:2302.13971).
    """

    def __init__(self, config: DecoderConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        self.config = config
        self.dropout = DropoutRate(config.dropout)
        self.position, self.blocks, self.final_norm = build_stack(config, config.num_layers, is_causal=True)
        self.output = free_head(config)
        initialise(self, self.initial_weights(), vocab_size=self.vocab_size, seed=seed)

    def hidden(
        self,
        input_ids: Int[Tensor, "B T"],
        *,
        cache: KVCache | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        prefix_lengths: Int[Tensor, " B"] | None = None,
        shared_lengths: Int[Tensor, " B"] | None = None,
        recompute: Recompute = "none",
    ) -> Hidden:
        """Normalised states [B, T, D]. A cache is read and extended; `recompute` trades time for memory.

        documents: which ids belong together, -1 for padding; none sees another. positions: the place of each id
        (left out: counted from 0 in each document, cached ones included). prefix_lengths: first ids of each row
        that see each other in both directions; they are read in one call. shared_lengths: first ids of each row
        that all its documents see, as the beginning they continue; `positions` says where each of them goes on.
        """
        past = cache.length if cache is not None else 0
        self._require_length(past + input_ids.shape[1])
        if prefix_lengths is not None and past:
            raise ValueError("prefix_lengths belong to the first call: the cache already holds positions")
        if shared_lengths is not None and (documents is None or positions is None):
            raise ValueError("shared_lengths need `documents` and `positions`, which say what goes on where")
        places = locate(input_ids, cache, positions, documents)
        mask = Mask(
            prefix_lengths=prefix_lengths,
            query_documents=places.query_documents,
            key_documents=places.key_documents,
            shared_lengths=shared_lengths,
        )
        x = self.embedding(input_ids)
        return run_stack(
            self, self.config, x, places, mask, training=self.training, cache=cache, recompute=recompute
        )

    def forward(self, input_ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        return self.head(self.hidden(input_ids, cache=cache).states)

    def start(
        self,
        prompt: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        documents: Int[Tensor, "B T"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Start:
        """An empty cache, long enough for the prompt's newest part and what follows, and the prompt."""
        read, _ = decoding.newest(prompt, decoding.row_lengths(prompt, documents), self.max_seq_len)
        length = min(self.max_seq_len, read.shape[1] + max_new_tokens)
        cache = self.new_cache(prompt.shape[0], length, dtype=dtype)
        return Start(cache, prompt, documents, is_prefix=self.config.prompt_mask == "prefix")

    @property
    def continues_prompt(self) -> bool:
        return True

    @property
    def num_cached_layers(self) -> int:
        return self.config.num_layers

    def residual_branches(self, name: str) -> int:
        del name
        return 2 * self.config.num_layers
