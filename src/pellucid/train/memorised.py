"""Whether a text that is scored was trained on: looked up in the run's own training text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.data.cache import prepare_cached
from pellucid.data.mixture import Mixture
from pellucid.data.overlap import find_overlap
from pellucid.data.shards import Ids, Split, open_shards
from pellucid.errors import UserError
from pellucid.train.config import RunConfig

_MOST_TOKENS = 1 << 24
"""Of the scored text, from which spans are drawn."""


def seen_in_training(loaded: checkpoint.Loaded, documents: Iterable[Ids]) -> float | None:
    """The share of the spans of the scored documents that stand in the run's training split: at least so much.

    None where that cannot be looked up: weights without a run, a stream, a data set on a hub, data that has moved or
    changed since or is no longer in the cache (nothing is prepared for this); and where `find_overlap` cannot say.
    """
    training = _training_split(loaded)
    if training is None:
        return None
    drawn = list(_first(documents))
    sample = [ids[:10_000] for ids in drawn[:1000]]
    tokens, size = sum(map(len, sample)), sum(len(loaded.tokenizer.decode_bytes(ids)) for ids in sample)
    return find_overlap(drawn, training, bytes_per_token=size / tokens).share if size else None


def split_documents(loaded: checkpoint.Loaded, split: Split, tokens: int) -> Iterator[Ids]:
    """The documents of the first tokens of a split, without the marks at their ends; where its documents are not
    known, each shard is one.
    """
    tokens = min(tokens, split.tokens)
    bounds = split.bounds.tolist() if len(split.starts) == len(split.shards) else []
    if len(bounds) < 2:
        bounds = [0]
        for count in split.shard_tokens:
            bounds.append(bounds[-1] + count)
    if bounds[0] > 0:
        bounds.insert(0, 0)
    for start, stop in pairwise(bounds):
        if start >= tokens:
            return
        ids = split.read(start, min(stop, tokens))
        yield ids[:-1] if len(ids) and ids[-1] == loaded.tokenizer.end_of_text_id else ids


def _first(documents: Iterable[Ids]) -> Iterator[Ids]:
    left = _MOST_TOKENS
    for ids in documents:
        yield ids[:left]
        left -= len(ids)
        if left <= 0:
            return


def _training_split(loaded: checkpoint.Loaded) -> Split | None:
    if "train" not in loaded.config:
        return None
    data = from_tree(RunConfig, loaded.config).data
    paths = [member.path for member in data.mixture] or [data.path]
    if data.stream.enabled or any(path.startswith("hub:") for path in paths):
        return None
    try:
        opened = [
            open_shards(
                prepare_cached(
                    path,
                    data.tokenizer,
                    reading=data.reading,
                    val_fraction=data.val_fraction,
                    deduplicate=data.deduplicate,
                    cache_dir=data.cache_dir,
                    is_made=False,
                )
            )
            for path in paths
        ]
        shards = Mixture(opened, [member.weight for member in data.mixture]) if data.mixture else opened[0]
    except UserError:
        return None
    trained_on = checkpoint.load_train_values(loaded.path).get("data")
    return shards.train if trained_on in (None, shards.fingerprint) else None
