"""EncoderDecoderLM: the source through an encoder, the target through a decoder that reads it. The same blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from pellucid.model import decoding
from pellucid.model.attention import Attention
from pellucid.model.block import Block
from pellucid.model.cache import CrossCache, KVCache
from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.init import initialise
from pellucid.model.interface import Hidden, Recompute, Start
from pellucid.model.kernels import AttentionContext
from pellucid.model.language_model import TransformerLM, free_head
from pellucid.model.masks import Mask
from pellucid.model.places import locate
from pellucid.model.stack import Stack, StackConfig, attention_context


class EncoderDecoderConfig(StackConfig):
    """An encoder-decoder transformer, by default from the same modern parts as a decoder."""

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    num_encoder_layers: int = Field(default=4, gt=0)
    """Number of blocks that read the source, in both directions."""
    num_decoder_layers: int = Field(default=4, gt=0)
    """Number of blocks that write the target."""
    share_embeddings: bool = True
    """Whether source and target use one token table."""
    start_id: int | None = Field(default=None, ge=0)
    """The id that every target begins after. Left out in a run: the tokenizer's end of text, else 0."""

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start_id is not None and self.vocab_size is not None and self.start_id >= self.vocab_size:
            raise ValueError(
                f"start_id ({self.start_id}) is no id of a vocabulary of vocab_size {self.vocab_size}; "
                "choose a smaller one"
            )
        return self

    def build(self, *, seed: int = 0) -> EncoderDecoderLM:
        return EncoderDecoderLM(self, seed=seed)


class EncoderDecoderLM(TransformerLM):
    """An encoder-decoder transformer: p(target | source), one target id at a time.

    `model(encoder_ids, input_ids)` gives logits [B, T, V] of the id after each of input_ids, which are the
    target's ids behind `start_id`. The encoder sees the source in both directions; every decoder block attends
    to the target so far, then to the encoded source. `generate(source)` writes a target. A tied head uses the
    target's table.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.1; Raffel et al. 2020, arXiv:1910.10683.
    """

    def __init__(self, config: EncoderDecoderConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        self.config = config
        if not config.share_embeddings:
            self.target_embedding = TokenEmbedding(
                config.padded_vocab_size, config.d_model, scaled=config.scale_embeddings
            )
        self.encoder = Stack(config, config.num_encoder_layers, is_causal=False)
        self.decoder = Stack(config, config.num_decoder_layers, is_causal=True, reads_source=True)
        self.output = free_head(config)
        initialise(self, self.initial_weights(), vocab_size=self.vocab_size, seed=seed)

    @property
    def _head_table(self) -> TokenEmbedding:
        return self.embedding if self.config.share_embeddings else self.target_embedding

    @property
    def start_id(self) -> int:
        return self.config.start_id or 0

    def encode(
        self,
        encoder_ids: Int[Tensor, "B S"],
        *,
        encoder_documents: Int[Tensor, "B S"] | None = None,
        recompute: Recompute = "none",
    ) -> Hidden:
        """The source's states [B, S, D]. encoder_documents: -1 for padding, which nothing sees."""
        self._require_length(encoder_ids.shape[1], "positions of the source")
        places = locate(encoder_ids, None, None, encoder_documents)
        mask = Mask(is_causal=False, query_documents=encoder_documents, key_documents=encoder_documents)
        return self.encoder(self.embedding(encoder_ids), places, mask, recompute=recompute)

    def hidden(
        self,
        input_ids: Int[Tensor, "B T"],
        *,
        encoder_ids: Int[Tensor, "B S"] | None = None,
        encoder_documents: Int[Tensor, "B S"] | None = None,
        cache: KVCache | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        recompute: Recompute = "none",
    ) -> Hidden:
        """Normalised states of the target [B, T, D]; the side losses of both halves.

        The source is given, or lies encoded in the cache (see `start`). A target id of
        document d sees the source's ids of document d; without `documents`, those of document 0.
        """
        auxiliary: dict[str, tuple[Tensor, Tensor]] = {}
        source = None
        if encoder_ids is not None:
            encoded = self.encode(encoder_ids, encoder_documents=encoder_documents, recompute=recompute)
            source = encoded.states
            auxiliary = {f"encoder_{name}": loss for name, loss in encoded.auxiliary.items()}
            if cache is not None:
                self._store(cache, source, encoder_documents)
        elif cache is None or cache.cross is None:
            raise ValueError("a target needs its source: give encoder_ids, or a cache that has read it")
        if cache is not None and cache.cross is not None:
            encoder_documents = cache.cross.documents
        self._require_length((cache.length if cache is not None else 0) + input_ids.shape[1])
        places = locate(input_ids, cache, positions, documents)
        mask = Mask(query_documents=places.query_documents, key_documents=places.key_documents)
        decoded = self.decoder(
            self._head_table(input_ids),
            places,
            mask,
            source=source,
            source_context=self._source_context(
                input_ids, places.query_documents, encoder_documents, source, cache
            ),
            cache=cache,
            recompute=recompute,
        )
        return Hidden(decoded.states, {**auxiliary, **decoded.auxiliary})

    def forward(
        self, encoder_ids: Int[Tensor, "B S"], input_ids: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        return self.head(self.hidden(input_ids, encoder_ids=encoder_ids).states)

    def start(
        self,
        prompt: Int[Tensor, "B S"],
        max_new_tokens: int,
        *,
        documents: Int[Tensor, "B S"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Start:
        """A cache that has read the prompt as its source, and the first id of a target.

        Of a source longer than max_seq_len the newest part is read.
        """
        lengths = decoding.row_lengths(prompt, documents)
        if documents is None or prompt.shape[1] > self.max_seq_len:
            prompt, documents = decoding.newest(prompt, lengths, self.max_seq_len)
        cache = self.new_cache(prompt.shape[0], min(self.max_seq_len, 1 + max_new_tokens), dtype=dtype)
        self._store(cache, self.encode(prompt, encoder_documents=documents).states, documents)
        return Start(cache, torch.full_like(prompt[:, :1], self.start_id), None)

    @property
    def continues_prompt(self) -> bool:
        return False

    @property
    def num_cached_layers(self) -> int:
        return self.config.num_decoder_layers

    def residual_branches(self, name: str) -> int:
        is_encoder = name.startswith("encoder.")
        return 2 * self.config.num_encoder_layers if is_encoder else 3 * self.config.num_decoder_layers

    def _store(
        self, cache: KVCache, source: Float[Tensor, "B S D"], documents: Int[Tensor, "B S"] | None
    ) -> None:
        """Keys and values of the encoded source for every decoder layer, once for all steps."""
        context = AttentionContext(Mask(is_causal=False))
        pairs = [
            cast(Attention, block.cross_attention).keys_and_values(source, context)
            for block in cast(Iterable[Block], self.decoder.blocks)
        ]
        keys, values = (torch.stack(tensors).to(cache.keys.dtype) for tensors in zip(*pairs, strict=True))
        cache.cross = CrossCache(keys, values, documents)

    def _source_context(
        self,
        input_ids: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None,
        encoder_documents: Int[Tensor, "B S"] | None,
        source: Float[Tensor, "B S D"] | None,
        cache: KVCache | None,
    ) -> AttentionContext:
        """Every target id sees the whole source of its document."""
        if source is not None:
            length = source.shape[1]
        else:
            assert cache is not None
            assert cache.cross is not None
            length = cache.cross.keys.shape[3]
        if documents is None and encoder_documents is None:
            mask = Mask(is_causal=False)
        else:
            batch, target = input_ids.shape
            mask = Mask(
                is_causal=False,
                query_documents=input_ids.new_zeros(batch, target) if documents is None else documents,
                key_documents=input_ids.new_zeros(batch, length)
                if encoder_documents is None
                else encoder_documents,
            )
        return attention_context(
            self.config.attention, mask, input_ids.shape[1], length, input_ids.device, training=self.training
        )
