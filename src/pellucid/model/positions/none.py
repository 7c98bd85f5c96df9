"""No position scheme: the causal mask alone tells a decoder where a token stands."""

from __future__ import annotations

from typing import Literal

from pellucid.config import Config
from pellucid.model.positions.base import Position


class NoPosition(Position):
    """None of the hooks is used, and there are no parameters (NoPE).

    A causal decoder can still tell places apart, because a token at place t sees t + 1 tokens. An encoder sees
    all of them from everywhere: without positions its input is a set, whose order it cannot know.
    Source: Kazemnejad et al. 2023, arXiv:2305.19466.
    """


class NoPositionConfig(Config):
    """No position scheme (NoPE): the causal mask alone says where a token stands."""

    kind: Literal["none"] = "none"

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> NoPosition:
        del d_model, num_heads, head_dim, max_seq_len, is_causal
        return NoPosition()
