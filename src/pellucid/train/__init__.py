"""Data, model, loss and optimizer meet here, and only here."""

from pellucid.train.config import RunConfig, TrainConfig
from pellucid.train.plan import Plan, make_plan
from pellucid.train.resuming import resume
from pellucid.train.run import train
from pellucid.train.session import RunResult

__all__ = ["Plan", "RunConfig", "RunResult", "TrainConfig", "make_plan", "resume", "train"]
