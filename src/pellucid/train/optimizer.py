"""A model meets its optimizer: who updates what, and the memory that it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pellucid.model import Transformer
from pellucid.optim import group_by_role
from pellucid.train.config import TrainConfig


def build_optimizer(model: Transformer, train: TrainConfig) -> torch.optim.Optimizer:
    """The run's optimizer of the model's parameters, grouped by their roles."""
    return train.optimizer.build(group_by_role(model, model.parameter_roles()), train.lr)


@dataclass(frozen=True)
class TrainingStateBytes:
    """Memory that training needs at every moment, whatever the batch."""

    weights: int
    average: int
    """The moving average of the weights; 0 where none is kept."""
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.average + self.gradients + self.optimizer


def count_training_state(model: Transformer, train: TrainConfig) -> TrainingStateBytes:
    """Weights, as many bytes of their average and of gradients, and the optimizer's state without its counters (4
    bytes a tensor).
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    groups = group_by_role(model, model.parameter_roles())
    average = 0 if train.weight_average is None else weights
    return TrainingStateBytes(weights, average, weights, train.optimizer.state_bytes(groups))
