"""Feed-forward layers: each one file (the mixture of experts, a folder); the union below is the registry."""

from typing import Annotated

from pydantic import Field

from pellucid.model.feedforward.gated import GEGLU, GatedMLP, GEGLUConfig, SwiGLU, SwiGLUConfig
from pellucid.model.feedforward.mlp import MLP, GELUConfig, ReLU2Config, ReLUConfig
from pellucid.model.feedforward.moe import MoE, MoEConfig

FeedForwardConfig = Annotated[
    SwiGLUConfig | GELUConfig | ReLUConfig | ReLU2Config | GEGLUConfig | MoEConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "GEGLU",
    "MLP",
    "FeedForwardConfig",
    "GEGLUConfig",
    "GELUConfig",
    "GatedMLP",
    "MoE",
    "MoEConfig",
    "ReLU2Config",
    "ReLUConfig",
    "SwiGLU",
    "SwiGLUConfig",
]
