"""Feed-forward layers: each one file; the union below is the registry."""

from typing import Annotated

from pydantic import Field

from pellucid.model.feedforward.mlp import MLP, GELUConfig
from pellucid.model.feedforward.swiglu import SwiGLU, SwiGLUConfig

FeedForwardConfig = Annotated[SwiGLUConfig | GELUConfig, Field(discriminator="kind")]

__all__ = ["MLP", "FeedForwardConfig", "GELUConfig", "SwiGLU", "SwiGLUConfig"]
