"""Reading a checkpoint: the config, a built model, its tokenizer, and what training needs to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid import tokenizers
from pellucid.checkpoint import layout
from pellucid.checkpoint.weights import fill, read_tensors
from pellucid.config import Tree, from_union, read_toml
from pellucid.errors import CheckpointError
from pellucid.model import ModelConfig, Transformer
from pellucid.tokenizers import Tokenizer, stored


@dataclass(frozen=True)
class Loaded:
    """A model ready to be scored or sampled (in evaluation mode), and its tokenizer."""

    model: Transformer
    tokenizer: Tokenizer
    config: Tree
    path: Path
    is_averaged: bool = False
    """Whether its weights are the run's moving average instead of those of the last update."""


def load_config(checkpoint: Path) -> Tree:
    """The resolved config that the checkpoint was trained with, as plain mappings."""
    return read_toml(checkpoint / layout.CONFIG)


def load_model_and_tokenizer_config(checkpoint: Path) -> tuple[Tree, Tree]:
    """The keys `model` and `data.tokenizer` of a run that goes on with this model and these ids."""
    directory = checkpoint / layout.TOKENIZER
    tokenizer = stored.read(directory).config
    if "path" in tokenizer:  # a tokenizer.json, of which a checkpoint has its own copy
        tokenizer = {**tokenizer, "path": str((directory / stored.TOKENIZER_JSON).absolute())}
    return _model_tree(checkpoint, load_config(checkpoint)), tokenizer


def _model_tree(checkpoint: Path, tree: Tree) -> Tree:
    if "model" not in tree:
        raise CheckpointError(f"{checkpoint / layout.CONFIG}: has no [model] table")
    return tree["model"]


def load(
    checkpoint: Path,
    *,
    device: str | torch.device = "cpu",
    is_verified: bool = False,
    averaged: bool | None = None,
) -> Loaded:
    """Build the model of a checkpoint and load its weights and tokenizer; `is_verified` skips the hashes.

    averaged: take the moving average of the weights (True), those of the last update (False), or the average
    where the run kept one (None), which is what its validation loss was measured on.
    Raises CheckpointError when something is missing, altered, or does not fit the model.
    """
    if not is_verified:
        layout.verify(checkpoint)
    tree = load_config(checkpoint)
    config = from_union(ModelConfig, _model_tree(checkpoint, tree), where=str(checkpoint / layout.CONFIG))
    with torch.device("meta"):
        model = config.build()
    model.to_empty(device="cpu")
    if averaged is None:
        averaged = layout.is_averaged(checkpoint)
    weights = checkpoint / (layout.AVERAGED if averaged else layout.MODEL)
    fill(model, read_tensors(weights), where=str(weights))
    if not (checkpoint / layout.TOKENIZER).is_dir():
        raise CheckpointError(f"{checkpoint}: has no {layout.TOKENIZER}/, so its ids cannot be read as text")
    tokenizer = tokenizers.load(checkpoint / layout.TOKENIZER)
    if tokenizer.vocab_size > model.vocab_size:
        raise CheckpointError(
            f"{checkpoint}: its tokenizer has {tokenizer.vocab_size} ids and its model only {model.vocab_size}"
        )
    return Loaded(model.to(device).eval(), tokenizer, tree, checkpoint, averaged)


def load_train_values(checkpoint: Path) -> dict[str, Any]:
    """The plain training values of a verified checkpoint; empty where it holds weights only."""
    values = checkpoint / layout.TRAIN_VALUES
    return json.loads(values.read_text(encoding="utf-8")) if values.is_file() else {}


class StoredState(NamedTuple):
    """What training goes on from."""

    model: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    averaged: Mapping[str, Tensor]
    """The moving average of the weights; empty where the run kept none."""


def load_train_state(checkpoint: Path) -> StoredState:
    """The weights and the training state of a verified checkpoint."""
    if not (checkpoint / layout.TRAIN_VALUES).is_file():
        raise CheckpointError(
            f"{checkpoint}: holds weights only; start from it with --init instead of --resume"
        )
    is_averaged = layout.is_averaged(checkpoint)
    return StoredState(
        model=read_tensors(checkpoint / layout.MODEL),
        tensors=read_tensors(checkpoint / layout.TRAIN_TENSORS),
        values=load_train_values(checkpoint),
        averaged=read_tensors(checkpoint / layout.AVERAGED) if is_averaged else {},
    )
