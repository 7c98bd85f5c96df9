"""Scoring a finished checkpoint on its run's own data or on other text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.data.manifest import is_prepared
from pellucid.data.objectives import CausalConfig, Objective
from pellucid.data.shards import open_shards
from pellucid.data.sources import open_source
from pellucid.data.sources.base import documents
from pellucid.errors import CheckpointError, DataError
from pellucid.evaluate.perplexity import Perplexity, evaluate_split, evaluate_text
from pellucid.model import EncoderDecoderLM
from pellucid.runtime.precision import Precision
from pellucid.train.config import RunConfig
from pellucid.train.opening import build_objective, open_data
from pellucid.train.rundir import RunDirectory


def score_checkpoint(
    path: Path,
    *,
    precision: Precision,
    data: Path | None = None,
    split: Literal["val", "train"] = "val",
    seq_len: int | None = None,
    max_tokens: int | None = None,
) -> tuple[str, Perplexity]:
    """(what was scored, the numbers): a prepared directory's split, a whole text, or the run's own split.

    What is predicted is what the run learned: every id of a text, or its objective's targets. Raises DataError when
    prepared data was made with another tokenizer than the model's.
    """
    loaded = checkpoint.load(path, device=precision.device.torch)
    return score_loaded(
        loaded, precision=precision, data=data, split=split, seq_len=seq_len, max_tokens=max_tokens
    )


def score_loaded(
    loaded: checkpoint.Loaded,
    *,
    precision: Precision,
    data: Path | None = None,
    split: Literal["val", "train"] = "val",
    seq_len: int | None = None,
    max_tokens: int | None = None,
) -> tuple[str, Perplexity]:
    """The same of a checkpoint that has been loaded, whose model may have been packed since."""
    path = loaded.path
    if seq_len is not None and seq_len > loaded.model.max_seq_len:
        raise CheckpointError(
            f"--seq-len {seq_len} is more than the model's context ({loaded.model.max_seq_len})"
        )
    objective = _learned(loaded, seq_len)
    if data is not None and not is_prepared(data):
        source = open_source(str(data))
        if not source.is_single_text:
            raise DataError(
                f"{data}: give one .txt file, or prepare it first with the model's tokenizer, {loaded.tokenizer.kind}: "
                f"pellucid prepare {data} --out DIR --tokenizer …"
            )
        (document,) = documents(source, whole=True)
        score = evaluate_text(
            loaded.model,
            loaded.tokenizer,
            document.text,
            precision,
            objective=objective,
            seq_len=seq_len,
            max_tokens=max_tokens,
        )
        return str(data), score
    if data is not None:
        shards, name = open_shards(data), str(data)
    else:
        if "train" not in loaded.config:
            raise CheckpointError(f"{path}: does not say what it was trained on; name a text with --data")
        opened = open_data(from_tree(RunConfig, loaded.config))
        shards, name = opened.shards, opened.shards.name
        trained_on = checkpoint.load_train_values(path).get("data")
        if trained_on not in (None, shards.fingerprint):
            raise DataError(
                f"{name}: is not what this model was trained on (fingerprint {shards.fingerprint[:12]}, the run had "
                f"{trained_on[:12]}); the text has changed since. Name what to score with --data"
                + RunDirectory(loaded.path.parent.parent).changes_of_data(shards.passport)
            )
    found = shards.tokenizer
    if found.fingerprint != loaded.tokenizer.fingerprint:
        raise DataError(
            f"{shards.directory}: was prepared with tokenizer {found.kind} ({found.fingerprint[:12]}), and the model "
            f"reads {loaded.tokenizer.kind} ({loaded.tokenizer.fingerprint[:12]}); score the raw text instead"
        )
    chosen = shards.val if split == "val" else shards.train
    if not chosen.is_complete:
        raise DataError(f"--split train: {name} is a stream, which nobody has all of; score --split val")
    score = evaluate_split(
        loaded.model,
        loaded.tokenizer,
        chosen,
        precision,
        objective=objective,
        seq_len=seq_len,
        max_tokens=max_tokens,
    )
    return f"{split} split of {name}", score


def _learned(loaded: checkpoint.Loaded, seq_len: int | None) -> Objective | None:
    """The run's own objective; None for the causal one, whose windows are the model's context."""
    if "train" not in loaded.config:
        if isinstance(loaded.model, EncoderDecoderLM):
            raise CheckpointError(
                f"{loaded.path}: does not say what its sources and targets were (its config.toml has no [train] "
                "table), so it cannot be scored"
            )
        return None
    config = from_tree(RunConfig, loaded.config)
    learned = config.data.objective
    if isinstance(learned, CausalConfig) and learned.packing == "contiguous":
        return None
    return build_objective(config, loaded.tokenizer, seq_len=seq_len)
