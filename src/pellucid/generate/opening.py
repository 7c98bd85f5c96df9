"""A checkpoint opened to write text with: on which device, and how its weights are stored for that."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from pellucid import checkpoint
from pellucid.checkpoint import Loaded
from pellucid.checkpoint.weights import read_tensors
from pellucid.errors import CheckpointError, ConfigError, StorageError
from pellucid.model import Transformer, native
from pellucid.model.packed import Format, Quantised, pack, packed_tensors, weight_bytes
from pellucid.runtime.device import Device
from pellucid.runtime.files import cache_folder, write_atomic
from pellucid.runtime.precision import DTYPES, PrecisionName, choose_generation_format

_CONVERSION = 3
"""Raised whenever the same weights would be quantised to other bits, or laid out otherwise."""

_MOST_CONVERSIONS = 8
"""How many quantised models are kept."""


@dataclass(frozen=True)
class Writer:
    """A model ready to write."""

    loaded: Loaded
    form: Format
    """How its matrices are stored."""
    bytes: int
    """Memory of all weights."""
    kernels: str
    """Who multiplies a single row, and why."""

    def __str__(self) -> str:
        return f"weights in {self.form} ({self.bytes / 2**20:,.0f} MiB; {self.kernels})"


def open_writer(
    path: Path, device: Device, dtype: PrecisionName = "auto", quantize: Quantised | None = None
) -> Writer:
    """Load a verified checkpoint and store its weights as asked; "auto" is what is fastest and hardly differs.

    On CPUs matrices are read by kernels of our own where they can be built (`pellucid.model.native`), in any
    format. Quantised weights are kept in the cache folder, so that the next time costs a read. Raises ConfigError
    where a number format and quantised weights are both asked for.
    """
    if quantize is not None and dtype != "auto":
        raise ConfigError(
            f"--dtype {dtype} and --quantize {quantize} exclude each other; leave one of them out"
        )
    loaded = checkpoint.load(path, device="cpu", is_verified=True)
    model, has_kernels = loaded.model, native.is_available() and device.type == "cpu"
    if quantize is not None:
        _quantise(path, model, quantize)
        form: Format = quantize
    else:
        size = weight_bytes(model)
        form = choose_generation_format(dtype, device, reads_narrow=has_kernels, weight_bytes=size)
        store_weights(model.to(device.torch), form)
    model.to(device.torch)
    who = "kernels of our own" if has_kernels else "torch"
    if quantize is not None and not has_kernels:
        who += f", which computes {form} back for every token: slower than --dtype"
    reason = "" if has_kernels or device.type != "cpu" else f", since {native.built().reason}"
    return Writer(loaded, form, weight_bytes(model), who + reason)


def store_weights(model: Transformer, form: Format) -> None:
    """Let a float32 model have its weights in a format, in place, as is fastest on the device that it is on."""
    if form in DTYPES and not (model.device.type == "cpu" and native.is_available()):
        model.to(DTYPES[form])
    else:
        pack(model, form)


def conversion_file(path: Path, form: Quantised) -> Path:
    """Where the quantised weights of a checkpoint are kept."""
    return (
        cache_folder()
        / "quantised"
        / f"{checkpoint.weights_hash(path)[:24]}-{form}-{_CONVERSION}.safetensors"
    )


def _quantise(path: Path, model: Transformer, form: Quantised) -> None:
    """Pack the model, from the kept conversion where there is one; else keep it, where there is room."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise CheckpointError(
                f"{path}: {name} has numbers that are not finite, which {form} would hide; choose an older checkpoint"
            )
    file = conversion_file(path, form)
    try:
        pack(model, form, read_tensors(file))
        with suppress(OSError):  # a folder of others, where it keeps its age
            os.utime(file)
    except CheckpointError:  # none yet, or damaged
        pack(model, form)
        with suppress(StorageError, OSError):
            write_atomic(file, save(packed_tensors(model)))
            _forget_oldest(file.parent)


def _forget_oldest(folder: Path) -> None:
    """Leave the conversions that were used last."""
    kept = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in kept[_MOST_CONVERSIONS:]:
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
