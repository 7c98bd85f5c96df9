"""Data, model, loss and optimizer meet here, and only here.

Importing it imports no torch, so that what reads runs alone starts at once; the names below bring it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.train.config import RunConfig, TrainConfig
    from pellucid.train.plan import Plan, make_plan
    from pellucid.train.resuming import resume
    from pellucid.train.run import train
    from pellucid.train.session import RunResult

_HOMES = {
    "Plan": "plan",
    "RunConfig": "config",
    "RunResult": "session",
    "TrainConfig": "config",
    "make_plan": "plan",
    "resume": "resuming",
    "train": "run",
}

__all__ = ["Plan", "RunConfig", "RunResult", "TrainConfig", "make_plan", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
