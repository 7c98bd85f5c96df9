"""Whether a text that is scored was trained on: looked up in the run's own training text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.data.overlap import find_overlap
from pellucid.data.shards import Ids, Split
from pellucid.errors import UserError
from pellucid.train.config import RunConfig
from pellucid.train.opening import open_data

_MOST_BYTES = 1 << 24
"""Of the scored text, from which spans are drawn."""


def seen_in_training(loaded: checkpoint.Loaded, text: Split | Iterator[str]) -> float | None:
    """The share of the text's spans that stand in the run's training split.

    None where that cannot be looked up: weights without a run, a stream, a data set on a hub, data that has moved or
    changed since.
    """
    training = _training_split(loaded)
    if training is None:
        return None
    ids, size = _of_split(loaded, text) if isinstance(text, Split) else _of_texts(loaded, text)
    if not len(ids) or not size:
        return None
    return find_overlap(ids, training, bytes_per_token=size / len(ids)).share


def _training_split(loaded: checkpoint.Loaded) -> Split | None:
    if "train" not in loaded.config:
        return None
    config = from_tree(RunConfig, loaded.config)
    paths = [member.path for member in config.data.mixture] or [config.data.path]
    if config.data.stream.enabled or any(path.startswith("hub:") for path in paths):
        return None
    try:
        shards = open_data(config, verify=False).shards
    except UserError:
        return None
    trained_on = checkpoint.load_train_values(loaded.path).get("data")
    return shards.train if trained_on in (None, shards.fingerprint) else None


def _of_split(loaded: checkpoint.Loaded, split: Split) -> tuple[Ids, int]:
    ids = split.read(0, min(split.tokens, _MOST_BYTES))
    sample = ids[:10_000]
    return ids, round(len(loaded.tokenizer.decode_bytes(sample)) * len(ids) / max(1, len(sample)))


def _of_texts(loaded: checkpoint.Loaded, texts: Iterator[str]) -> tuple[Ids, int]:
    parts, size = [np.empty(0, dtype=np.uint32)], 0
    for text in texts:
        parts.append(loaded.tokenizer.encode(text))
        size += len(text.encode())
        if size >= _MOST_BYTES:
            break
    return np.concatenate(parts), size
