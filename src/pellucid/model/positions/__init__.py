"""Position schemes: each one file; the union below is the registry."""

from typing import Annotated

from pydantic import Field

from pellucid.model.positions.base import Position
from pellucid.model.positions.learned import LearnedPosition, LearnedPositionConfig
from pellucid.model.positions.rope import RotaryPosition, RotaryPositionConfig

PositionConfig = Annotated[RotaryPositionConfig | LearnedPositionConfig, Field(discriminator="kind")]

__all__ = [
    "LearnedPosition",
    "LearnedPositionConfig",
    "Position",
    "PositionConfig",
    "RotaryPosition",
    "RotaryPositionConfig",
]
