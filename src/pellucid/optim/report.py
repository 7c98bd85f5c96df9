"""What an optimizer does to which parameters, as rows for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class UpdateRow:
    """The parameters of one role, and how they are updated."""

    role: str
    method: str
    """The kind of optimizer that updates them."""
    tensors: int
    parameters: int
    weight_decay: float
    lr_scale: float
    """Their rate as a multiple of the schedule's."""

    def __str__(self) -> str:
        return _line([self])


def report(optimizer: torch.optim.Optimizer) -> list[UpdateRow]:
    """A row for each parameter group, read from the optimizer itself as an `OptimizerConfig` built it."""
    return [
        UpdateRow(
            role=group["role"],
            method=group["method"],
            tensors=len(group["params"]),
            parameters=sum(parameter.numel() for parameter in group["params"]),
            weight_decay=group["weight_decay"],
            lr_scale=group["lr_scale"],
        )
        for group in optimizer.param_groups
    ]


def summary(rows: Sequence[UpdateRow]) -> str:
    """One line: roles that are updated in the same way stand together."""
    alike: dict[tuple[str, float, float], list[UpdateRow]] = {}
    for row in rows:
        alike.setdefault((row.method, row.weight_decay, row.lr_scale), []).append(row)
    return "; ".join(_line(together) for together in alike.values())


def _line(alike: Sequence[UpdateRow]) -> str:
    first, tensors = alike[0], sum(row.tensors for row in alike)
    roles = ", ".join(dict.fromkeys(row.role for row in alike))
    decay = f", decay {first.weight_decay:g}" if first.weight_decay else ", no decay"
    scale = f", rate x {first.lr_scale:g}" if first.lr_scale != 1 else ""
    count = f"{sum(row.parameters for row in alike):,} parameters in {tensors:,} tensor{'s' if tensors > 1 else ''}"
    return f"{roles} by {first.method}: {count}{decay}{scale}"
