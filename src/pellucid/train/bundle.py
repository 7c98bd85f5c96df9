"""A flight-recorder bundle: all that one step was made of, so that it can be made again anywhere.

runs/<name>/bundles/step-00000123/
├── config.toml          the run's resolved config, with its seed: every random draw follows from it and the step
├── model.safetensors    the weights before the step
├── batch.safetensors    the micro-batches, as <number>.<field>, and where their rows came from
├── step.json            the step, its learning rate, loss, gradient norm and scale; what was not finite first
└── environment.json     the machine and the libraries
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pellucid.checkpoint.weights import read_tensors
from pellucid.config import from_tree, read_toml, to_toml
from pellucid.data.batch import Origin as RowOrigin
from pellucid.data.loader import TensorBatch
from pellucid.errors import CheckpointError, StorageError
from pellucid.runtime.files import directory_written_aside, require_space
from pellucid.train.config import RunConfig

BUNDLES = "bundles"
CONFIG, MODEL, BATCH, STEP, ENVIRONMENT = (
    "config.toml",
    "model.safetensors",
    "batch.safetensors",
    "step.json",
    "environment.json",
)
_SMALL_FILES_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Bundle:
    """One step, before it was made, and what came of it."""

    config: RunConfig
    weights: Mapping[str, Tensor]
    batch: list[TensorBatch]
    step: int
    """Updates done before it."""
    lr: float
    progress: float
    """The share of the run that was done, 0 … 1."""
    scaler: Mapping[str, Any] | None
    """The gradient scaler's values, where the run has one."""
    loss: float
    grad_norm: float
    origin: Mapping[str, Any] | None
    """What was not finite first (the fields of an `Origin`), as far as it was found."""
    environment: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write it aside and rename it. Raises StorageError where there is no room."""
        tensors = {
            name: t.to("cpu", copy=True).contiguous() for name, t in _batch_tensors(self.batch).items()
        }
        weights = {name: t.detach().to("cpu").contiguous() for name, t in self.weights.items()}
        needed = sum(t.numel() * t.element_size() for t in [*tensors.values(), *weights.values()])
        require_space(path, needed + _SMALL_FILES_BYTES, purpose="a flight-recorder bundle")
        with directory_written_aside(path) as aside:
            try:
                save_file(weights, aside / MODEL, metadata={"format": "pt"})
                save_file(tensors, aside / BATCH)
            except SafetensorError as error:  # what safetensors makes of a full disk, too
                raise StorageError(f"{path}: cannot be written: {error}") from error
            (aside / CONFIG).write_text(to_toml(self.config), encoding="utf-8")
            (aside / STEP).write_text(json.dumps(self._values(), indent=2, allow_nan=False), encoding="utf-8")
            (aside / ENVIRONMENT).write_text(json.dumps(self.environment, indent=2), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Raises CheckpointError for what is no bundle or is damaged."""
        try:
            values = json.loads((path / STEP).read_text(encoding="utf-8"))
            environment = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{path}: not a flight-recorder bundle (no {STEP} in it); bundles lie in RUN/{BUNDLES}/step-…"
            ) from None
        except ValueError as error:
            raise CheckpointError(f"{path}: altered or truncated: {error}") from None
        return cls(
            config=from_tree(RunConfig, read_toml(path / CONFIG), where=str(path / CONFIG)),
            weights=read_tensors(path / MODEL),
            batch=_batch(read_tensors(path / BATCH)),
            step=values["step"],
            lr=values["lr"],
            progress=values["progress"],
            scaler=values["gradient_scaler"],
            loss=float(values["loss"]),
            grad_norm=float(values["grad_norm"]),
            origin=values["origin"],
            environment=environment,
        )

    def _values(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seed": self.config.train.seed,
            "lr": self.lr,
            "progress": self.progress,
            "loss": json_number(self.loss),
            "grad_norm": json_number(self.grad_norm),
            "gradient_scaler": None if self.scaler is None else dict(self.scaler),
            "origin": self.origin,
        }


def json_number(value: float) -> float | str:
    """JSON has no word for numbers that are not finite: "nan", "inf", "-inf". `float` reads either form."""
    return value if math.isfinite(value) else str(value)


def _batch_tensors(batch: list[TensorBatch]) -> dict[str, Tensor]:
    """The tensors of the micro-batches and of their origins, by number and field."""
    found: dict[str, Tensor] = {}
    for number, micro in enumerate(batch):
        for field in fields(TensorBatch):
            value = getattr(micro, field.name)
            if isinstance(value, Tensor):
                found[f"{number}.{field.name}"] = value
        for field in fields(RowOrigin):
            found[f"{number}.origin.{field.name}"] = torch.from_numpy(getattr(micro.origin, field.name))
    return found


def _batch(tensors: Mapping[str, Tensor]) -> list[TensorBatch]:
    count = 1 + max(int(name.partition(".")[0]) for name in tensors)
    batch: list[TensorBatch] = []
    for number in range(count):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        origin = RowOrigin(**{f.name: own.pop(f"origin.{f.name}").numpy() for f in fields(RowOrigin)})
        batch.append(TensorBatch(**own, origin=origin))
    return batch
