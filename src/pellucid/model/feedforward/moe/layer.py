"""The mixture-of-experts layer and its config."""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model.feedforward.gated import gated_width
from pellucid.model.feedforward.moe.experts import mix
from pellucid.model.feedforward.moe.routing import balance_loss, route, z_loss


class MoE(nn.Module):
    """Σ over a token's k best experts of weight · SwiGLU(x): many experts' parameters, the work of a few.

    A linear router scores X experts; see routing.py for the choice and experts.py for how it is computed.
    Input and output: [..., D]; parameters: router [X, D], gate and up [X, F, D], down [X, D, F]; no biases.
    Besides y it returns side losses by name, as (coefficient · loss · tokens, tokens): "moe_balance"
    (experts get equally many tokens) and "moe_z" (router logits stay small). Each is taken over the tokens of
    this call, padding included.
    While torch compiles, all experts are computed over all tokens unless the products are in bf16.
    Source: Shazeer et al. 2017, arXiv:1701.06538; SwiGLU experts as in Mixtral, Jiang et al. 2024, arXiv:2401.04088.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        num_experts: int = 8,
        top_k: int = 2,
        *,
        normalize_top_k: bool = True,
        balance_coefficient: float = 0.01,
        z_coefficient: float = 0.001,
    ) -> None:
        super().__init__()
        if top_k > num_experts:
            raise ValueError(f"top_k ({top_k}) is more than num_experts ({num_experts})")
        self.top_k, self.normalize_top_k = top_k, normalize_top_k
        self.balance_coefficient, self.z_coefficient = balance_coefficient, z_coefficient
        self.router = nn.Linear(d_model, num_experts, bias=False)
        self.gate = nn.Parameter(torch.empty(num_experts, d_ff, d_model).normal_(std=0.02))
        self.up = nn.Parameter(torch.empty(num_experts, d_ff, d_model).normal_(std=0.02))
        self.down = nn.Parameter(torch.empty(num_experts, d_model, d_ff).normal_(std=0.02))

    @property
    def matmul_weights_per_token(self) -> int:
        """The weights that one token is multiplied by: the router's and its k experts'. FLOPs are twice that."""
        one_expert = self.gate[0].numel() + self.up[0].numel() + self.down[0].numel()
        return self.router.weight.numel() + self.top_k * one_expert

    def forward(
        self, x: Float[Tensor, "*rows D"]
    ) -> tuple[Float[Tensor, "*rows D"], dict[str, tuple[Tensor, Tensor]]]:
        rows = x.reshape(-1, x.shape[-1])
        routing = route(self._score(rows), self.top_k, normalize=self.normalize_top_k)
        y = mix(rows, routing, self.gate, self.up, self.down)
        tokens = routing.logits.new_full((), rows.shape[0])
        auxiliary = {
            "moe_balance": (self.balance_coefficient * balance_loss(routing) * tokens, tokens),
            "moe_z": (self.z_coefficient * z_loss(routing) * tokens, tokens),
        }
        return y.view(x.shape), auxiliary

    def _score(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N X"]:
        """The router's logits, in float32 whatever autocast wants: bf16 would make close experts equal."""
        kind = rows.device.type
        if rows.dtype == torch.float64 or not torch.amp.is_autocast_available(kind):
            return self.router(rows)
        with torch.autocast(kind, enabled=False):
            return F.linear(rows.float(), self.router.weight.float())


class MoEConfig(Config):
    """Mixture of experts: a router sends each token through a few of many SwiGLU layers."""

    kind: Literal["moe"] = "moe"
    num_experts: int = Field(default=8, gt=0)
    """Number of experts."""
    top_k: int = Field(default=2, gt=0)
    """How many experts each token goes through."""
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside one expert. Left out: 8/3 · d_model / top_k, rounded up to a multiple of 64, so that a token's
    experts are together about as wide as one SwiGLU layer."""
    normalize_top_k: bool = True
    """Whether the weights of a token's experts are divided by their sum. With top_k = 1 the weight is
    then always 1, and the router learns from its two losses alone."""
    balance_coefficient: float = Field(default=0.01, ge=0)
    """Weight of the loss that gives experts equally many tokens."""
    z_coefficient: float = Field(default=0.001, ge=0)
    """Weight of the loss that keeps the router's logits small."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k ({self.top_k}) is more than num_experts ({self.num_experts}); "
                "a token goes through different experts, so lower top_k or add experts"
            )
        return self

    def build(self, d_model: int, *, bias: bool) -> MoE:
        if bias:
            raise ValueError(
                "bias = true does not go with feed_forward.kind 'moe', whose experts have no biases; "
                "set bias = false or choose another feed_forward.kind"
            )
        return MoE(
            d_model,
            self.d_ff or gated_width(d_model, self.top_k),
            self.num_experts,
            self.top_k,
            normalize_top_k=self.normalize_top_k,
            balance_coefficient=self.balance_coefficient,
            z_coefficient=self.z_coefficient,
        )
