"""What a decoder and an encoder-decoder do alike: head, roles, plain generation."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pellucid.model import decoding
from pellucid.model.block import Block
from pellucid.model.cache import KVCache
from pellucid.model.embeddings import TokenEmbedding
from pellucid.model.init import Initial, plan_initial_weights
from pellucid.model.interface import Head, LanguageModel, Role, finish_logits
from pellucid.model.stack import StackConfig


class TransformerLM(nn.Module, ABC):
    """A token table, a head, and everything that follows from `hidden`."""

    config: Any  # each family's own
    embedding: TokenEmbedding
    output: nn.Linear | None
    """The free head; None where the head is the token table."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        rows = config.padded_vocab_size  # raises where there is no vocabulary yet
        assert config.vocab_size is not None
        self.vocab_size, self.max_seq_len = config.vocab_size, config.max_seq_len
        self._logit_softcap = config.logit_softcap
        self.embedding = TokenEmbedding(rows, config.d_model, scaled=config.scale_embeddings)

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def head_parameters(self) -> Head:
        weight = self._head_table.table if self.output is None else self.output.weight
        return Head(weight, self.vocab_size, self._logit_softcap)

    @property
    def _head_table(self) -> TokenEmbedding:
        """The table that a tied head uses."""
        return self.embedding

    def head(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        logits = self._head_table.logits(states) if self.output is None else self.output(states)
        return finish_logits(logits, self.vocab_size, self._logit_softcap)

    @property
    def all_blocks(self) -> list[Block]:
        """Every block, in the order in which they run."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def parameter_roles(self) -> dict[str, Role]:
        """The role of each parameter by its name."""
        return {name: _role(name, parameter) for name, parameter in self.named_parameters()}

    def new_cache(
        self, batch_size: int, max_length: int | None = None, *, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache for `max_length` positions (default: max_seq_len) on the model's device."""
        return KVCache.allocate(
            num_layers=self.num_cached_layers,
            batch_size=batch_size,
            num_kv_heads=self.config.kv_heads,
            max_length=self.max_seq_len if max_length is None else max_length,
            head_dim=self.config.head_size,
            device=self.device,
            dtype=dtype or self.embedding.cache_dtype,
        )

    def initial_weights(self) -> list[Initial]:
        """What each parameter gets before training, by the table of init.py."""
        return plan_initial_weights(self, self.parameter_roles(), self.residual_branches)

    def _require_length(self, length: int, what: str = "positions (cached ones included)") -> None:
        if length > self.max_seq_len:
            raise ValueError(
                f"{length} {what} are more than max_seq_len ({self.max_seq_len}); "
                "shorten the input or build the model with a larger max_seq_len"
            )

    def generate(
        self,
        prompt: Int[Tensor, "B T"] | Int[Tensor, " T"] | Sequence[Int[Tensor, " T_row"]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        stop_id: int | None = None,
        seed: int = 0,
    ) -> Int[Tensor, "B T_out"] | Int[Tensor, " T_out"] | list[Int[Tensor, " T_out"]]:
        """What the decoder has after the prompt, in the prompt's form.

        For a decoder, the prompt's ids followed by up to max_new_tokens new ones; for an encoder-decoder, which
        reads the prompt with its encoder, the new ones alone. A list of prompts of unequal lengths gives a list.
        Greedy unless a temperature above 0 is given. A row that has produced `stop_id` goes on with it;
        decoding ends when every row has. Dropout is off meanwhile. The generate package adds everything else
        around the same loop.
        """
        pick = decoding.picker(temperature, top_k, decoding.generator_for(self.device, seed))
        documents = None
        if isinstance(prompt, Tensor):
            rows = prompt if prompt.dim() == 2 else prompt[None]
        else:
            rows, documents = decoding.pad_left(prompt)
        columns = list(
            decoding.decode(
                cast(LanguageModel, self), rows, max_new_tokens, pick, stop_id=stop_id, documents=documents
            )
        )
        new = torch.stack(columns, dim=1) if columns else rows[:, :0]
        ids = torch.cat((rows, new), dim=1) if self.continues_prompt else new
        if isinstance(prompt, Tensor):
            return ids if prompt.dim() == 2 else ids[0]
        unpadded = [rows.shape[1] - len(row) if self.continues_prompt else 0 for row in prompt]
        return [row[skip:] for row, skip in zip(ids, unpadded, strict=True)]

    # What the families decide ---------------------------------------------------------------------

    @property
    @abstractmethod
    def continues_prompt(self) -> bool:
        """Whether new ids follow the prompt in one sequence, or answer it in another."""

    @property
    @abstractmethod
    def num_cached_layers(self) -> int:
        """Layers whose keys and values decoding keeps."""

    @abstractmethod
    def residual_branches(self, name: str) -> int:
        """How many branches add to the residual stream that the parameter of this name writes to."""


def free_head(config: StackConfig) -> nn.Linear | None:
    """The head's own matrix, where it is not the token table."""
    return None if config.tie_embeddings else nn.Linear(config.d_model, config.padded_vocab_size, bias=False)


_RESIDUAL_MATRIX = re.compile(r"attention\.output\.weight$|feed_forward\.down(\.weight)?$")


def _role(name: str, parameter: nn.Parameter) -> Role:
    owner, _, leaf = name.rpartition(".")
    if owner.endswith("embedding"):
        return "embedding"
    if owner.endswith("position"):
        return "position"
    if owner == "output":
        return "head"
    if parameter.dim() == 1:
        return "gain" if leaf == "gain" else "bias"
    return "residual_matrix" if _RESIDUAL_MATRIX.search(name) else "matrix"
