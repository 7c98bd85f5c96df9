"""Optimizers and schedules. Parameters are told apart by role; a schedule is a function of progress."""

from pellucid.optim.adamw import AdamWConfig
from pellucid.optim.groups import ParameterGroup, group_by_role
from pellucid.optim.schedules import ConstantConfig, CosineConfig, LinearConfig, ScheduleConfig

OptimizerConfig = AdamWConfig
"""What a run's `[train.optimizer]` table may be."""

__all__ = [
    "AdamWConfig",
    "ConstantConfig",
    "CosineConfig",
    "LinearConfig",
    "OptimizerConfig",
    "ParameterGroup",
    "ScheduleConfig",
    "group_by_role",
]
