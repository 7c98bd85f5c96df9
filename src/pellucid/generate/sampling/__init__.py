"""How the next id is chosen: a list of pure steps over logits, then the largest logit or a draw.

A step is `step(logits [B, V], what is written) → logits [B, V]`. Read in this order: config → order → penalties,
constraints, filters → choosing; `presets` are named settings. The settings and their names come without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.generate.sampling.choosing import Chooser
    from pellucid.generate.sampling.config import SamplingConfig
    from pellucid.generate.sampling.presets import PRESETS, preset
    from pellucid.generate.sampling.scoring import LogProbability, log_probabilities
    from pellucid.generate.written import Step, Written

__all__ = [
    "PRESETS",
    "Chooser",
    "LogProbability",
    "SamplingConfig",
    "Step",
    "Written",
    "log_probabilities",
    "preset",
]

_HOMES = {
    "PRESETS": "sampling.presets",
    "preset": "sampling.presets",
    "SamplingConfig": "sampling.config",
    "Chooser": "sampling.choosing",
    "LogProbability": "sampling.scoring",
    "log_probabilities": "sampling.scoring",
    "Step": "written",
    "Written": "written",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"pellucid.generate.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
