"""Side jobs of a run, each one file: they are told facts and may answer with a request."""

from pellucid.train.hooks.base import Hook, collect
from pellucid.train.hooks.interrupt import Interrupt, InterruptedWorkError
from pellucid.train.hooks.metrics import MetricsFile
from pellucid.train.hooks.periodic import PeriodicSave
from pellucid.train.hooks.progress import Progress
from pellucid.train.hooks.samples import Samples

__all__ = [
    "Hook",
    "Interrupt",
    "InterruptedWorkError",
    "MetricsFile",
    "PeriodicSave",
    "Progress",
    "Samples",
    "collect",
]
