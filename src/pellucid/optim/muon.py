"""Muon: momentum whose update is made orthogonal, for the matrices inside a model; AdamW for all else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from pellucid.optim.adamw import AdamWSettings
from pellucid.optim.groups import ParameterGroup
from pellucid.optim.joint import JointOptimizer
from pellucid.optim.orthogonal import BatchedMuon

MUON_ROLES = ("matrix", "residual_matrix")
"""What Muon is for: matrices between hidden states. Of a token table or a head only the rows of a few ids move."""


class MuonConfig(AdamWSettings):
    """Muon for the matrices inside, as torch's own; AdamW for embeddings, head, positions, gains and biases.

    b ← momentum · b + (1 - momentum) · g;  o = UVᵀ of UΣVᵀ = (1 - momentum) · g + momentum · b, nearly, by
    Newton-Schulz steps in bf16;  w [m, n] ← w - lr · lr_scale · (0.2 · sqrt(max(m, n)) · o + decay · w).
    The factor 0.2 · sqrt(max(m, n)) gives the update the RMS that AdamW's has in practice, so a train.lr and a decay
    found for AdamW serve here too. Each expert of a mixture is a matrix of its own.
    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the factor: Liu et al. 2025, arXiv:2502.16982, eq. 4.
    """

    kind: Literal["muon"] = "muon"
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Memory of Muon's running mean of gradients."""
    nesterov: bool = True
    """Whether Muon's update looks one step of momentum ahead."""
    newton_schulz_steps: int = Field(default=5, gt=0, lt=100)
    """Steps that make an update orthogonal; each is three matrix products."""
    lr_scale: float = Field(default=1.0, gt=0)
    """Muon's rate as a multiple of train.lr, at which AdamW updates the rest."""

    def build(self, groups: Sequence[ParameterGroup], lr: float) -> torch.optim.Optimizer:
        inside, others = _divide(groups)
        muon = BatchedMuon(
            [self.settings(group, "muon", lr_scale=self.lr_scale) for group in inside],
            lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.newton_schulz_steps,
        )
        return JointOptimizer([muon, self.build_adamw(others, lr)])

    def state_bytes(self, groups: Sequence[ParameterGroup]) -> int:
        """The weights (b) of what Muon updates, and twice those (m and v) of what AdamW does."""
        inside, others = _divide(groups)
        return sum(group.nbytes for group in inside) + 2 * sum(group.nbytes for group in others)


def _divide(groups: Sequence[ParameterGroup]) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """Muon's groups and AdamW's."""
    inside = [group for group in groups if group.role in MUON_ROLES]
    return inside, [group for group in groups if group.role not in MUON_ROLES]
