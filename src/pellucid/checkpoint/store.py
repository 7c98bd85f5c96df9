"""Writing a checkpoint: aside, synced, hashed, then renamed into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import SafetensorError
from torch import Tensor

from pellucid.checkpoint import layout
from pellucid.checkpoint.weights import write_tensors
from pellucid.config import Tree
from pellucid.errors import CheckpointError, StorageError
from pellucid.runtime.files import directory_written_aside, require_space, sha256_file, storage_errors
from pellucid.tokenizers import Tokenizer

SMALL_FILES_BYTES = 8 << 20
"""Room for what a checkpoint holds besides tensors: config, values and a tokenizer with its ranks."""


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds. Weights alone need only `config` (with its `model` table) and `model`."""

    config: Tree
    model: Mapping[str, Tensor]
    tokenizer: Tokenizer | None = None
    averaged: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The moving average of the weights, by the names of `model`, where the run keeps one."""
    train_tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    train_values: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def tensor_bytes(self) -> int:
        tensors = (*self.model.values(), *self.averaged.values(), *self.train_tensors.values())
        return sum(t.numel() * t.element_size() for t in tensors)

    def snapshot(self) -> Contents:
        """The same with copies of all tensors in main memory, which training does not change any more."""
        return replace(
            self,
            model=_copies(self.model),
            averaged=_copies(self.averaged),
            train_tensors=_copies(self.train_tensors),
        )


@torch.no_grad()
def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def make_room(checkpoint: Path, contents: Contents) -> None:
    """Raise StorageError, with nothing written, when the disk lacks the space for a checkpoint.

    A damaged one of the same run and step, which a resumed run has passed over, is removed.
    """
    _remove_damaged(checkpoint)
    require_space(checkpoint, contents.tensor_bytes + SMALL_FILES_BYTES, purpose="a checkpoint")


def save(checkpoint: Path, contents: Contents) -> None:
    """Write the checkpoint directory. Raises StorageError, with nothing written, when the disk lacks the space.

    A crash at any moment leaves either no directory of that name or a whole one. A damaged checkpoint of the
    same run and step, which a resumed run has passed over, is replaced; anything else there is a StorageError.
    """
    make_room(checkpoint, contents)
    with directory_written_aside(checkpoint) as aside:
        try:
            _write(aside, contents)
        except SafetensorError as error:  # what safetensors makes of a full disk, too
            raise StorageError(f"{checkpoint}: cannot be written: {error}") from error


def _write(directory: Path, contents: Contents) -> None:
    (directory / layout.CONFIG).write_text(tomli_w.dumps(contents.config), encoding="utf-8")
    write_tensors(contents.model, directory / layout.MODEL)
    if contents.averaged:
        write_tensors(contents.averaged, directory / layout.AVERAGED)
    if contents.tokenizer is not None:
        (directory / layout.TOKENIZER).mkdir()
        contents.tokenizer.save(directory / layout.TOKENIZER)
    if contents.train_values or contents.train_tensors:
        (directory / layout.TRAIN_VALUES).parent.mkdir()
        write_tensors(contents.train_tensors, directory / layout.TRAIN_TENSORS)
        text = json.dumps(contents.train_values, indent=2, allow_nan=False)
        (directory / layout.TRAIN_VALUES).write_text(text, encoding="utf-8")
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    manifest = {
        "format_version": layout.FORMAT_VERSION,
        "sha256": {p.relative_to(directory).as_posix(): sha256_file(p) for p in files},
    }
    (directory / layout.MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _remove_damaged(checkpoint: Path) -> None:
    if checkpoint not in layout.checkpoints(checkpoint.parent.parent):
        return
    try:
        layout.verify(checkpoint)
    except CheckpointError:
        with storage_errors(checkpoint):
            shutil.rmtree(checkpoint)
