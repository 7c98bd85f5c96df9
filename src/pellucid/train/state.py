"""All that resume needs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ResumeError


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
            "gradient_scaler": scaler,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `values` gave. The model's weights are loaded by the checkpoint itself."""
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
