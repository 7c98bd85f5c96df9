"""Norms: each one file; the union below is the registry."""

from typing import Annotated

from pydantic import Field

from pellucid.model.norms.layernorm import LayerNorm, LayerNormConfig
from pellucid.model.norms.none import NoNorm, NoNormConfig
from pellucid.model.norms.rmsnorm import RMSNorm, RMSNormConfig

NormConfig = Annotated[RMSNormConfig | LayerNormConfig | NoNormConfig, Field(discriminator="kind")]

__all__ = [
    "LayerNorm",
    "LayerNormConfig",
    "NoNorm",
    "NoNormConfig",
    "NormConfig",
    "RMSNorm",
    "RMSNormConfig",
]
