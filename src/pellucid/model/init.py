"""Initial weights as one table: role → distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from pellucid.model.interface import Role
from pellucid.runtime.seeding import torch_generator


def standard_deviations(num_residual_branches: int) -> dict[Role, float]:
    """The normal distribution's standard deviation for each role that is drawn; the others are constants.

    What a residual branch adds last ("residual_matrix") is scaled by 1 / sqrt(branches), so that the
    residual stream's variance does not grow with depth.  Source: Radford et al. 2019 (GPT-2), sec. 2.3.
    """
    return {
        "embedding": 0.02,
        "position": 0.02,
        "head": 0.02,
        "matrix": 0.02,
        "residual_matrix": 0.02 / math.sqrt(num_residual_branches),
    }


def constants() -> dict[Role, float]:
    """The value of each role that is not drawn."""
    return {"gain": 1.0, "bias": 0.0}


@torch.no_grad()
def initialise(model: nn.Module, roles: Mapping[str, Role], *, num_residual_branches: int, seed: int) -> None:
    """Fill every parameter by its role, each from a generator of its own (seed, parameter name).

    Weights are drawn on the CPU, so that every device starts from the same ones, and adding a parameter
    to a model leaves the others' initial values as they were.
    """
    deviations, fixed = standard_deviations(num_residual_branches), constants()
    for name, parameter in model.named_parameters():
        role = roles[name]
        if role in fixed:
            parameter.fill_(fixed[role])
        elif not parameter.is_meta:
            generator = torch_generator("cpu", seed, "initial weights", name)
            drawn = torch.empty(parameter.shape, dtype=torch.float32, device="cpu").normal_(
                generator=generator
            )
            parameter.copy_(drawn * deviations[role])
