"""Position schemes: each one file; the union below is the registry."""

from typing import Annotated

from pydantic import Field

from pellucid.model.positions.alibi import AlibiPosition, AlibiPositionConfig
from pellucid.model.positions.base import Angles, Position
from pellucid.model.positions.learned import LearnedPosition, LearnedPositionConfig
from pellucid.model.positions.none import NoPosition, NoPositionConfig
from pellucid.model.positions.rope import RotaryPosition, RotaryPositionConfig
from pellucid.model.positions.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NTKScaling,
    RopeScaling,
    YarnScaling,
)
from pellucid.model.positions.sinusoidal import SinusoidalPosition, SinusoidalPositionConfig
from pellucid.model.positions.t5 import T5Position, T5PositionConfig

PositionConfig = Annotated[
    RotaryPositionConfig
    | LearnedPositionConfig
    | SinusoidalPositionConfig
    | AlibiPositionConfig
    | T5PositionConfig
    | NoPositionConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "AlibiPosition",
    "AlibiPositionConfig",
    "Angles",
    "LearnedPosition",
    "LearnedPositionConfig",
    "LinearScaling",
    "Llama3Scaling",
    "NTKScaling",
    "NoPosition",
    "NoPositionConfig",
    "NoScaling",
    "Position",
    "PositionConfig",
    "RopeScaling",
    "RotaryPosition",
    "RotaryPositionConfig",
    "SinusoidalPosition",
    "SinusoidalPositionConfig",
    "T5Position",
    "T5PositionConfig",
    "YarnScaling",
]
