"""Source × tokenizer → a prepared directory: token shards of both sides of the split, and a manifest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pellucid.data.encoding import EncodeBatch, SplitEncoder, encode_with_special
from pellucid.data.manifest import (
    TOKENIZER,
    Manifest,
    Recipe,
    SplitRecord,
    SplitRule,
    TokenizerRecord,
    is_prepared,
    write_manifest,
)
from pellucid.data.shards import ShardWriter, ids_dtype, open_shards
from pellucid.data.sources.base import Source
from pellucid.errors import ConfigError, DataError, StorageError
from pellucid.runtime.files import directory_written_aside, require_space, require_writable
from pellucid.tokenizers import Tokenizer

SHARD_TOKENS = 100_000_000

Progress = Callable[[int, int], None]
"""Called now and then with the bytes of the source done so far, and all of them."""

_log = logging.getLogger(__name__)


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    out: Path,
    *,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    num_threads: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Encode a source into the directory `out`, which appears whole or not at all.

    Every document is ended by the tokenizer's end-of-text id where it has one; a single text is not. A pair is
    two documents, its source and its target, in which special tokens are parsed (a source may hold sentinels);
    in single texts they are plain text. How the text is split is in `SplitRule`. In memory at a time: one
    document and some millions of characters.
    num_threads: how many encode a batch together; they never change the result.

    When `out` was already made from the same source, tokenizer and settings it is used as it is (logged at
    level INFO). Raises DataError when `out` holds anything else, when the input is bad or too short to be
    split; StorageError when the disk has too little room or `out` cannot be written. All but bad input is
    found before anything is written.
    """
    recipe = plan(source, tokenizer, val_fraction=val_fraction, shard_tokens=shard_tokens)
    if _is_occupied(out):
        return _reuse(out, recipe)
    require_writable(out.parent)
    # At worst every byte becomes an id. Each .txt file adds an end-of-text id and a start of 8 bytes; what a
    # .jsonl line adds (twice that for a pair) is less than its own marks take.
    worst_bytes = source.size_bytes * ids_dtype(recipe.dtype).itemsize + 12 * len(recipe.source.files)
    require_space(out, worst_bytes, purpose=f"preparing {source.name}")
    encode_batch = (
        partial(encode_with_special, tokenizer) if recipe.special_tokens else tokenizer.encode_batch
    )
    encode = partial(encode_batch, num_threads=num_threads)
    try:
        with directory_written_aside(out) as aside:
            train, val = _write_splits(source, aside, recipe, encode, progress or _no_progress)
            manifest = Manifest(**dict(recipe), train=train, val=val)
            tokenizer.save(aside / TOKENIZER)
            write_manifest(aside, manifest)
    except (OSError, StorageError):
        if is_prepared(out):  # another process was faster
            return _reuse(out, recipe)
        raise
    return manifest


def plan(
    source: Source, tokenizer: Tokenizer, *, val_fraction: float = 0.1, shard_tokens: int = SHARD_TOKENS
) -> Recipe:
    """What `prepare` would make, without making it. Reads the source's files once, to hash them."""
    if not 0 < val_fraction < 1:
        raise ConfigError(f"data.val_fraction: wanted a number between 0 and 1, not {val_fraction}")
    if shard_tokens < 1:
        raise ConfigError(f"shard_tokens: wanted at least 1, not {shard_tokens}")
    record = source.record()
    if record.pair_fields is not None and tokenizer.end_of_text_id is None:
        raise DataError(
            f"{source.name}: pairs need a tokenizer with an end-of-text token, which says where a target ends, and "
            f"{tokenizer.kind} has none; choose another data.tokenizer.kind"
        )
    return Recipe(
        dtype="uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        vocab_size=tokenizer.vocab_size,
        shard_tokens=shard_tokens,
        tokenizer=TokenizerRecord(
            kind=tokenizer.kind,
            fingerprint=tokenizer.fingerprint,
            end_of_text_id=None if source.is_single_text else tokenizer.end_of_text_id,
        ),
        source=record,
        split=SplitRule(rule="tail" if source.is_single_text else "content-hash", val_fraction=val_fraction),
        special_tokens=None if record.pair_fields is None else "parsed",
    )


def _is_occupied(out: Path) -> bool:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file is in the way; name a directory that does not exist yet")
    return out.is_dir() and any(out.iterdir())


def _reuse(out: Path, recipe: Recipe) -> Manifest:
    if not is_prepared(out):
        raise DataError(
            f"{out}: holds other files; name a directory that does not exist yet, or an empty one"
        )
    manifest = open_shards(out).manifest
    if manifest.key != recipe.key:
        lines = "".join(f"\n  {line}" for line in manifest.differences(recipe))
        raise DataError(f"{out}: holds data prepared in another way; name another directory:{lines}")
    _log.info("%s: already prepared from the same source and tokenizer; used as it is", out)
    return manifest


def _no_progress(done: int, total: int) -> None:
    pass


# The split ------------------------------------------------------------------------------------------


def _write_splits(
    source: Source, directory: Path, recipe: Recipe, encode: EncodeBatch, progress: Progress
) -> tuple[SplitRecord, SplitRecord]:
    done = 0

    def encoded(source_bytes: int) -> None:
        nonlocal done
        done += source_bytes
        progress(done, source.size_bytes)

    writer = partial(
        ShardWriter,
        directory,
        dtype=recipe.dtype,
        vocab_size=recipe.vocab_size,
        shard_tokens=recipe.shard_tokens,
    )
    side = partial(
        SplitEncoder, encode=encode, end_of_text_id=recipe.tokenizer.end_of_text_id, encoded=encoded
    )
    with writer("train") as train_writer, writer("val") as val_writer:
        train, val = side(train_writer), side(val_writer)
        divide = _divide_tail if recipe.split.rule == "tail" else _divide_by_hash
        divide(source, train, val, recipe.split.val_fraction)
        train.flush()
        val.flush()
    progress(source.size_bytes, source.size_bytes)
    return train.record(), val.record()


def _divide_tail(source: Source, train: SplitEncoder, val: SplitEncoder, val_fraction: float) -> None:
    (document,) = source.documents()
    length = len(document.text)
    border = int(length * (1 - val_fraction))
    if not 0 < border < length:
        raise DataError(
            f"{document.where}: {length:,} characters cannot be split with a validation part of "
            f"{val_fraction}; give more text or another data.val_fraction"
        )
    train_bytes = document.source_bytes * border // length
    train.add(document.text, 0, border, source_bytes=train_bytes)
    val.add(document.text, border, length, source_bytes=document.source_bytes - train_bytes)


def _divide_by_hash(source: Source, train: SplitEncoder, val: SplitEncoder, val_fraction: float) -> None:
    limit = _hash_limit(source, val_fraction)
    for document in source.documents():
        side = val if content_hash(*document.texts) < limit else train
        length = sum(map(len, document.texts))
        for text in document.texts:
            side.add(text, 0, len(text), source_bytes=document.source_bytes * len(text) // length)


def content_hash(*texts: str) -> int:
    """The first 8 bytes of the SHA-256 of the UTF-8 text, as a little-endian integer; NUL between a pair's."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:8], "little")


def _hash_limit(source: Source, val_fraction: float) -> int:
    """Texts with a hash below this are for validation. Reads only until both sides are seen to have one."""
    limit = int(val_fraction * (1 << 64))
    lowest, highest = 1 << 64, -1
    is_paired = False
    for document in source.documents():
        is_paired = document.target is not None
        value = content_hash(*document.texts)
        lowest, highest = min(lowest, value), max(highest, value)
        if lowest < limit <= highest:
            return limit
    if highest < 0:
        raise DataError(f"{source.name}: no document has any text; give files with text in them")
    if lowest == highest and is_paired:
        raise DataError(
            f"{source.name}: all pairs have one and the same source and target, so none can be held out for "
            "validation; give at least two that differ"
        )
    if lowest == highest:
        raise DataError(
            f"{source.name}: all documents are one and the same text, so none can be held out for "
            "validation; give more documents, or one .txt file, which is split by its tail"
        )
    return lowest + 1 if lowest >= limit else highest
