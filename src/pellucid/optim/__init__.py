"""Optimizers and schedules. Parameters are told apart by role; a schedule is a function of step and progress."""

from typing import Annotated

from pydantic import Field

from pellucid.optim.adafactor import AdafactorConfig
from pellucid.optim.adamw import AdamWConfig
from pellucid.optim.groups import ParameterGroup, group_by_role
from pellucid.optim.muon import MuonConfig
from pellucid.optim.report import UpdateRow, report, summary
from pellucid.optim.schedules import (
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    ScheduleConfig,
    WSDConfig,
)
from pellucid.optim.sgd import SGDConfig

OptimizerConfig = Annotated[
    AdamWConfig | MuonConfig | AdafactorConfig | SGDConfig, Field(discriminator="kind")
]
"""What a run's `[train.optimizer]` table may be."""

__all__ = [
    "AdafactorConfig",
    "AdamWConfig",
    "ConstantConfig",
    "CosineConfig",
    "InverseSqrtConfig",
    "LinearConfig",
    "MuonConfig",
    "OptimizerConfig",
    "ParameterGroup",
    "SGDConfig",
    "ScheduleConfig",
    "UpdateRow",
    "WSDConfig",
    "group_by_role",
    "report",
    "summary",
]
