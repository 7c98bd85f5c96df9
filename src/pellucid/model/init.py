"""Initial weights as one table: role → distribution."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from pellucid.model.interface import Role
from pellucid.runtime.seeding import torch_generator

STANDARD_DEVIATIONS: Mapping[Role, float] = {
    "embedding": 0.02,
    "position": 0.02,
    "head": 0.02,
    "matrix": 0.02,
    "residual_matrix": 0.02,
}
"""Roles that are drawn from a normal distribution around 0.

What a residual branch adds last ("residual_matrix") is scaled by 1 / sqrt(branches) besides, so that the
residual stream's variance does not grow with depth.  Source: Radford et al. 2019 (GPT-2), sec. 2.3.
"""

CONSTANTS: Mapping[Role, float] = {"gain": 1.0, "bias": 0.0}
"""Roles whose parameters all start at one value."""


@dataclass(frozen=True)
class Initial:
    """What one parameter gets: normal(0, value) or value everywhere. For reports and for the drawing itself."""

    name: str
    role: Role
    shape: tuple[int, ...]
    distribution: Literal["normal", "constant"]
    value: float

    def __str__(self) -> str:
        how = f"normal, std {self.value:.5g}" if self.distribution == "normal" else f"{self.value:g}"
        return f"{self.name} {list(self.shape)} ({self.role}): {how}"


def plan_initial_weights(
    model: nn.Module, roles: Mapping[str, Role], residual_branches: Callable[[str], int]
) -> list[Initial]:
    """What every parameter gets. residual_branches: of the stack that a parameter belongs to, by its name."""
    rows: list[Initial] = []
    for name, parameter in model.named_parameters():
        role, shape = roles[name], tuple(parameter.shape)
        if role in CONSTANTS:
            rows.append(Initial(name, role, shape, "constant", CONSTANTS[role]))
            continue
        deviation = STANDARD_DEVIATIONS[role]
        if role == "residual_matrix":
            deviation /= math.sqrt(residual_branches(name))
        rows.append(Initial(name, role, shape, "normal", deviation))
    return rows


def summary(plan: Iterable[Initial]) -> list[str]:
    """A line for all layers' parameters of one name: what they get, and how many there are."""
    alike: Counter[Initial] = Counter(
        replace(initial, name=re.sub(r"\b\d+\b", "*", initial.name)) for initial in plan
    )
    return [f"{initial}" + (f"  x {count}" if count > 1 else "") for initial, count in alike.items()]


@torch.no_grad()
def initialise(model: nn.Module, plan: Iterable[Initial], *, vocab_size: int, seed: int) -> None:
    """Fill every parameter as planned, each from a generator of its own (seed, parameter name).

    Weights are drawn on the CPU, so that every device starts from the same ones, and adding a parameter
    to a model leaves the others' initial values as they were. Rows of a table beyond vocab_size are 0.
    """
    for initial in plan:
        parameter = model.get_parameter(initial.name)
        if initial.distribution == "constant":
            parameter.fill_(initial.value)
        elif not parameter.is_meta:
            generator = torch_generator("cpu", seed, "initial weights", initial.name)
            rows = vocab_size if initial.role in ("embedding", "head") else parameter.shape[0]
            drawn = torch.empty((rows, *parameter.shape[1:]), dtype=torch.float32, device="cpu").normal_(
                generator=generator
            )
            parameter.zero_()
            parameter[:rows] = (drawn * initial.value).to(parameter)
