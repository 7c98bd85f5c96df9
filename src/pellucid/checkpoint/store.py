"""Writing a checkpoint: aside, synced, hashed, then renamed into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pellucid.checkpoint import layout
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
    train_tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    train_values: Mapping[str, Any] = field(default_factory=dict[str, Any])


def save(checkpoint: Path, contents: Contents) -> None:
    """Write the checkpoint directory. Raises StorageError, with nothing written, when the disk lacks the space.

    A crash at any moment leaves either no directory of that name or a whole one. A damaged checkpoint of the
    same run and step, which a resumed run has passed over, is replaced; anything else there is a StorageError.
    """
    _remove_damaged(checkpoint)
    tensors = [*contents.model.values(), *contents.train_tensors.values()]
    needed = sum(t.numel() * t.element_size() for t in tensors) + SMALL_FILES_BYTES
    require_space(checkpoint, needed, purpose="a checkpoint")
    with directory_written_aside(checkpoint) as aside:
        try:
            _write(aside, contents)
        except SafetensorError as error:  # what safetensors makes of a full disk, too
            raise StorageError(f"{checkpoint}: cannot be written: {error}") from error


def _write(directory: Path, contents: Contents) -> None:
    (directory / layout.CONFIG).write_text(tomli_w.dumps(contents.config), encoding="utf-8")
    _save_tensors(contents.model, directory / layout.MODEL)
    if contents.tokenizer is not None:
        (directory / layout.TOKENIZER).mkdir()
        contents.tokenizer.save(directory / layout.TOKENIZER)
    if contents.train_values or contents.train_tensors:
        (directory / layout.TRAIN_VALUES).parent.mkdir()
        _save_tensors(contents.train_tensors, directory / layout.TRAIN_TENSORS)
        text = json.dumps(contents.train_values, indent=2, allow_nan=False)
        (directory / layout.TRAIN_VALUES).write_text(text, encoding="utf-8")
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    manifest = {
        "format_version": layout.FORMAT_VERSION,
        "sha256": {p.relative_to(directory).as_posix(): sha256_file(p) for p in files},
    }
    (directory / layout.MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.touch()  # so that the file has the mode of any new file; safetensors would make it private
    mode = path.stat().st_mode
    save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path)
    path.chmod(mode)


def _remove_damaged(checkpoint: Path) -> None:
    if checkpoint not in layout.checkpoints(checkpoint.parent.parent):
        return
    try:
        layout.verify(checkpoint)
    except CheckpointError:
        with storage_errors(checkpoint):
            shutil.rmtree(checkpoint)
