"""Weights in safetensors files, in one or in several with an index, as the Hugging Face ecosystem keeps them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import Tensor

from pellucid.checkpoint.weights import read_tensors, write_tensors
from pellucid.errors import CheckpointError, StorageError
from pellucid.runtime.extras import require

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9._-]{1,200}\.safetensors")
_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


def write_weights(directory: Path, weights: Mapping[str, Tensor], *, shard_bytes: int) -> None:
    """One file, or several of at most `shard_bytes` (or of one larger tensor) with an index, which the library
    huggingface_hub cuts.
    """
    if sum(tensor.nbytes for tensor in weights.values()) <= shard_bytes:
        try:
            write_tensors(weights, directory / ONE, {"format": "pt"})
        except SafetensorError as error:  # what safetensors makes of a full disk, too
            raise StorageError(f"{ONE}: cannot be written: {error}") from error
        return
    hub = require("huggingface_hub", extra="data", purpose="cutting weights into several files")
    hub.save_torch_state_dict(dict(weights), directory, max_shard_size=shard_bytes, metadata={"format": "pt"})


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of the directory. Raises CheckpointError for what is missing, damaged, or not safetensors.

    An index may name files of the directory alone: a path or a link out of it is refused. Pickled weights are not
    read, since reading them can run any program.
    """
    if (directory / ONE).is_file():
        return read_tensors(directory / ONE)
    if (directory / INDEX).is_file():
        return _read_shards(directory)
    raise no_weights(str(directory), (path.name for path in directory.iterdir()))


def no_weights(where: str, names: Iterable[str]) -> CheckpointError:
    """The error for a place whose files, by their names, hold no weights that are read here."""
    pickled = sorted(name for name in names if name.endswith(_PICKLES))
    if pickled:
        return CheckpointError(
            f"{where}: {pickled[0]}: is a pickle, which can run any program when it is read, so it is not. Convert it "
            "where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER) writes safetensors"
        )
    return CheckpointError(
        f"{where}: there are no weights in it (no {ONE}, no {INDEX}); name a directory that save_pretrained wrote"
    )


def shards(index: Path) -> dict[str, set[str]]:
    """The files that an index names, and the tensors of each.

    Raises CheckpointError where a name is not that of a .safetensors file beside the index: it may come from anybody.
    """
    try:
        content: Any = json.loads(index.read_bytes())
        places = cast(Mapping[Any, Any], content["weight_map"]).items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: truncated or altered ({error!r}); fetch it again") from None
    files: dict[str, set[str]] = {}
    for tensor, file in places:
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise CheckpointError(
                f"{index}: names the file {str(file)[:200]!r}; only .safetensors files of the directory itself are read"
            )
        files.setdefault(file, set()).add(tensor)
    if not files:
        raise CheckpointError(f"{index}: truncated or altered (it names no file); fetch it again")
    return files


def _read_shards(directory: Path) -> dict[str, Tensor]:
    index = directory / INDEX
    found: dict[str, Tensor] = {}
    for name, expected in sorted(shards(index).items()):
        _require_inside(directory / name, index)
        tensors = read_tensors(directory / name)
        if missing := sorted(expected - tensors.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CheckpointError(
                f"{index}: says that {name} has {missing[0]!r}{more}, and it has not; fetch both again"
            )
        if twice := sorted(found.keys() & tensors.keys()):
            raise CheckpointError(
                f"{directory / name}: has {twice[0]!r}, which an earlier file of {index.name} has, too"
            )
        found |= tensors
    return found


def _require_inside(file: Path, index: Path) -> None:
    """Raise CheckpointError unless it is a file of its own directory."""
    if not file.is_file():
        raise CheckpointError(f"{index}: names {file.name}, and there is no such file; fetch it, too")
    if not _is_inside(file):
        raise CheckpointError(
            f"{index}: names {file.name}, a link out of the directory; only what is in the directory is read: put "
            "the file there in its place"
        )


def _is_inside(file: Path) -> bool:
    """In its directory; or where the cache of huggingface_hub has it: snapshots/COMMIT/FILE links to blobs/HASH."""
    folder = file.parent.resolve()
    if file.resolve().parent == folder:
        return True
    blobs = folder.parent.with_name("blobs")
    is_cache = folder.parent.name == "snapshots" and file.is_symlink()
    return is_cache and Path(os.path.normpath(folder / file.readlink())).parent == blobs
