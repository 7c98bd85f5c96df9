"""Controlled comparisons: every combination of some values, at equal budgets, over several seeds."""

from pellucid.experiments.ablation.ablate import Progress, ablate
from pellucid.experiments.ablation.planning import plan_ablation

__all__ = ["Progress", "ablate", "plan_ablation"]
