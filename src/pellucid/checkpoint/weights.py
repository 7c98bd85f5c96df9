"""Weights alone, in any float format, as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from pellucid.errors import CheckpointError, ConfigError
from pellucid.runtime.files import write_atomic
from pellucid.runtime.precision import DTYPES

WeightFormat = Literal["fp32", "fp16", "bf16"]


def narrowed(name: str, tensor: Tensor, dtype: WeightFormat) -> Tensor:
    """A copy on the CPU in another format. Raises ConfigError for a number that becomes infinite in it."""
    found = tensor.detach().to("cpu", DTYPES[dtype], copy=True)
    if dtype != "fp32" and not torch.equal(found.isfinite(), tensor.detach().to("cpu").isfinite()):
        others = "bf16 or fp32" if dtype == "fp16" else "fp32"
        raise ConfigError(
            f"{name} has numbers up to {tensor.abs().max():.3g}, which {dtype} cannot hold; take {others}"
        )
    return found


def save_weights(model: nn.Module, path: Path | str, dtype: WeightFormat = "fp32") -> None:
    """Write every parameter by its name, converted to `dtype`. The file appears whole or not at all.

    Raises ConfigError for a number that is too large for the format.
    """
    tensors = {name: narrowed(name, p, dtype).contiguous() for name, p in model.named_parameters()}
    write_atomic(Path(path), save(tensors, metadata={"format": "pt"}))


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Fill the model's parameters from a file of `save_weights`, converted to the model's own dtype.

    Raises CheckpointError, with the model unchanged, when names or shapes do not fit.
    """
    fill(model, read_tensors(Path(path)), where=str(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {str(error.strerror).lower()}") from None


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises SafetensorError where that cannot be done, on a full disk too."""
    path.touch()  # so that the file has the mode of any new file; safetensors would make it private
    mode = path.stat().st_mode
    save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path, metadata)
    path.chmod(mode)


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into the parameters of their names. Raises CheckpointError naming every misfit, first."""
    parameters = dict(model.named_parameters())
    faults = [f"missing: {name}" for name in parameters if name not in tensors]
    faults += [f"not in the model: {name}" for name in tensors if name not in parameters]
    faults += [
        f"{name}: the file has shape {list(tensors[name].shape)}, the model {list(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(f"{where}: does not fit the model: {shown}")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
