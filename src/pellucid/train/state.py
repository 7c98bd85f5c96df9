"""All that resume needs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ResumeError
from pellucid.train.averaging import WeightAverage
from pellucid.train.health import Health


@dataclass
class TrainState:
    """A run between two updates. The order of data and every random draw follow from `step` and the seed."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    step: int = 0
    """Updates done."""
    tokens: int = 0
    """Tokens seen."""
    elapsed_seconds: float = 0.0
    """Wall time of the run so far, over all its sessions."""
    best_loss: float | None = None
    """The lowest validation loss so far, in nats a token."""
    best_step: int | None = None
    average: WeightAverage | None = None
    """The moving average of the weights, where the run keeps one."""
    evaluation_due: bool = False
    """Whether the evaluation after `step` was interrupted: a resumed run begins with it."""
    health: Health = field(default_factory=Health)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """The model has the weights inside that it is judged by: the averaged ones where the run keeps them."""
        return nullcontext() if self.average is None else self.average.swapped()

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's tensors as `<what>.<parameter name>`, e.g. `exp_avg.blocks.0.attention.query.weight`."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            f"{what}.{names[parameter]}": value
            for parameter, slots in self.optimizer.state.items()
            for what, value in slots.items()
        }

    def values(self) -> dict[str, Any]:
        """The plain values, as JSON types."""
        scaler = self.scaler.state_dict() if self.scaler else None
        return {
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_seconds": self.elapsed_seconds,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "health": asdict(self.health),
            "gradient_scaler": scaler,
            "averaged_updates": self.average.updates if self.average else 0,
            "evaluation_due": self.evaluation_due,
        }

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        values: Mapping[str, Any],
        averaged: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take over what `tensors`, `values` and the average gave. The model has its weights already.

        Where there is no average to take over, averaging begins with the present weights.
        """
        slots: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            what, _, name = key.partition(".")
            slots.setdefault(name, {})[what] = value
        for name, parameter in self.model.named_parameters():
            if name not in slots and tensors:
                raise ResumeError(
                    f"the checkpoint has no optimizer state for {name}; it is of another optimizer"
                )
            for what, value in slots.get(name, {}).items():
                # A counter such as AdamW's `step` stays where the fused kernel wants it: beside its parameter.
                self.optimizer.state[parameter][what] = value.to(parameter.device)
        if self.scaler and values["gradient_scaler"]:
            self.scaler.load_state_dict(values["gradient_scaler"])
        self.step, self.tokens = values["step"], values["tokens"]
        self.elapsed_seconds = values["elapsed_seconds"]
        self.best_loss, self.best_step = values["best_loss"], values["best_step"]
        self.health = Health(**values.get("health", {}))  # not there in earlier checkpoints
        self.evaluation_due = values.get("evaluation_due", False)  # not there in earlier checkpoints
        if self.average and averaged:
            self.average.restore(averaged, values["averaged_updates"])
