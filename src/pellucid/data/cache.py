"""A data path → a prepared directory, or a stream: what is made of raw text lies in the user's cache."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pellucid.data.manifest import is_prepared
from pellucid.data.prepare import plan, prepare
from pellucid.data.progress import Report
from pellucid.data.shards import ShardSet, open_shards, require_pairs
from pellucid.data.sources import Source, open_source, texts
from pellucid.data.sources.base import Reading
from pellucid.data.stream import Stream, StreamConfig, stream_recipe
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import cache_folder, storage_errors
from pellucid.tokenizers import Tokenizer, TokenizerConfig, load


def prepare_cached(
    path: str,
    tokenizer: TokenizerConfig | None = None,
    *,
    reading: Reading | None = None,
    val_fraction: float = 0.1,
    deduplicate: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Report | None = None,
    is_made: bool = True,
) -> Path:
    """The prepared directory for a data path.

    A directory that is already prepared is returned as it is, once it is known to hold what the tokenizer
    config would make (None: whatever it holds). Anything else is a source (see `open_source`), and is
    prepared into the cache unless the cache has it: the entry is found by the hashes of the source's files,
    the tokenizer's fingerprint, the split and the format version. A damaged entry is made again, and one that
    was left unfinished is gone on with.
    reading: how files become documents. With `pair_fields` paired data is wanted; without, single texts, or
    whatever a prepared directory holds. is_made: whether it is prepared where it is not; else that is a DataError.

    The cache is `cache_dir`, else $PELLUCID_CACHE_DIR, else the user cache directory of the platform.
    Raises DataError for input that cannot be used, for a prepared directory made with another tokenizer, and
    for one without pairs where they are wanted.
    """
    reading = reading or Reading()
    directory = Path(path).expanduser()
    if is_prepared(directory):
        shards = open_shards(directory)
        if tokenizer is not None:
            _require_tokenizer(shards, tokenizer)
        if reading.pair_fields is not None:
            require_pairs(shards.train, str(directory))
        _require_made_so(shards, reading, deduplicate=deduplicate)
        return directory
    source, built = _open(path, tokenizer, reading)
    recipe = plan(source, built, val_fraction=val_fraction, deduplicate=deduplicate)
    out = cache_folder(cache_dir) / "prepared" / _entry(source.name, built.kind, recipe.key)
    if not is_made:
        if not is_prepared(out):
            raise DataError(f"{path}: is not in the cache; prepare it first")
        return out
    if is_prepared(out) and not _is_whole(out):
        with storage_errors(out), suppress(FileNotFoundError):  # another process may be removing it too
            shutil.rmtree(out)
    prepare(
        source,
        built,
        out,
        val_fraction=val_fraction,
        deduplicate=deduplicate,
        workers=workers,
        progress=progress,
    )
    return out


def open_stream(
    path: str,
    tokenizer: TokenizerConfig,
    settings: StreamConfig,
    *,
    reading: Reading | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Stream:
    """The stream of a data path, its shards kept in the cache. Raises DataError for what cannot be streamed."""
    if is_prepared(Path(path).expanduser()):
        raise DataError(
            f"{path}: is prepared already, and data.stream is for sources; leave data.stream.enabled out"
        )
    source, built = _open(path, tokenizer, reading or Reading())
    if source.is_single_text:
        raise DataError(
            f"{path}: is one running text, and a stream is made of documents; leave data.stream.enabled out, or name "
            "what stands between documents with data.document_marker"
        )
    key = stream_recipe(source, built, settings).fingerprint
    directory = cache_folder(cache_dir) / "streams" / _entry(source.name, built.kind, key)
    return Stream(source, built, directory, settings)


def _open(path: str, tokenizer: TokenizerConfig | None, reading: Reading) -> tuple[Source, Tokenizer]:
    if tokenizer is None:
        raise ConfigError(f"data.tokenizer: {path} is raw text, and a tokenizer is needed to prepare it")
    source = open_source(path, **asdict(reading))
    return source, tokenizer.build(lambda: texts(source))


def _entry(source_name: str, kind: str, key: str) -> str:
    """The name of a cached directory: words for people, and what tells it from all others."""
    words = re.sub(r"[^\w.-]+", "-", f"{Path(source_name).stem[:40]}-{kind}")
    return f"{words}-{key[:16]}"


def _is_whole(directory: Path) -> bool:
    try:
        open_shards(directory).verify()
    except DataError:
        return False
    return True


def _require_tokenizer(shards: ShardSet, config: TokenizerConfig) -> None:
    recorded = shards.manifest.tokenizer
    found = f"{recorded.kind} ({recorded.fingerprint[:12]})"
    fix = f"set data.tokenizer to what made it, or prepare the text again with {config.kind}"
    if config.kind != recorded.kind:
        raise DataError(
            f"{shards.directory}: was prepared with tokenizer {found}, the config names {config.kind}; {fix}"
        )
    wanted = config.build(_alphabet_of(shards)).fingerprint
    if wanted != recorded.fingerprint:
        raise DataError(
            f"{shards.directory}: was prepared with tokenizer {found}, the config makes another of that "
            f"kind ({wanted[:12]}), for example by other special tokens; {fix}"
        )


def _require_made_so(shards: ShardSet, reading: Reading, *, deduplicate: bool) -> None:
    """Raise DataError where a prepared directory was made without what is asked for now."""
    found = shards.manifest
    asked = {
        "data.deduplicate": (deduplicate, found.deduplicated),
        "data.document_marker": (reading.document_marker, found.source.document_marker),
    }
    for name, (wanted, was) in asked.items():
        if wanted and wanted != was:
            raise DataError(
                f"{shards.directory}: was prepared with {name}={was}, and {wanted} is asked for; prepare the text "
                f"again, or leave {name} out"
            )


def _alphabet_of(shards: ShardSet) -> Callable[[], list[str]]:
    """A corpus of exactly the saved tokenizer's own entries, from which a `char` one is built again equal."""

    def corpus() -> list[str]:
        saved = load(shards.tokenizer_directory)
        special = set(saved.special_tokens.values())
        return [saved.decode([token for token in range(saved.vocab_size) if token not in special])]

    return corpus
