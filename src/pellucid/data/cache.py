"""A data path → a prepared directory: raw text is prepared into the user's cache, once."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from pellucid.data.manifest import is_prepared
from pellucid.data.prepare import Progress, plan, prepare
from pellucid.data.shards import ShardSet, open_shards, require_pairs
from pellucid.data.sources import PairFields, open_source, texts
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import storage_errors
from pellucid.tokenizers import TokenizerConfig, load

CACHE_VARIABLE = "PELLUCID_CACHE_DIR"


def prepare_cached(
    path: str,
    tokenizer: TokenizerConfig | None = None,
    *,
    val_fraction: float = 0.1,
    text_field: str = "text",
    pair_fields: PairFields | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    num_threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """The prepared directory for a data path.

    A directory that is already prepared is returned as it is, once it is known to hold what the tokenizer
    config would make (None: whatever it holds). Anything else is a source (see `open_source`), and is
    prepared into the cache unless the cache has it: the entry is found by the hashes of the source's files,
    the tokenizer's fingerprint, the split and the format version. A damaged entry is made again.
    pair_fields: what paired data is wanted from, see `open_source`; None: single texts, or whatever a
    prepared directory holds.

    The cache is `cache_dir`, else $PELLUCID_CACHE_DIR, else the user cache directory of the platform.
    Raises DataError for input that cannot be used, for a prepared directory made with another tokenizer, and
    for one without pairs where they are wanted.
    """
    directory = Path(path).expanduser()
    if is_prepared(directory):
        shards = open_shards(directory)
        if tokenizer is not None:
            _require_tokenizer(shards, tokenizer)
        if pair_fields is not None:
            require_pairs(shards.train, str(directory))
        return directory
    if tokenizer is None:
        raise ConfigError(f"data.tokenizer: {path} is raw text, and a tokenizer is needed to prepare it")
    source = open_source(path, text_field=text_field, pair_fields=pair_fields)
    built = tokenizer.build(lambda: texts(source))
    recipe = plan(source, built, val_fraction=val_fraction)
    words = re.sub(r"[^\w.-]+", "-", f"{Path(source.name).stem[:40]}-{built.kind}")
    out = cache_folder(cache_dir) / "prepared" / f"{words}-{recipe.key[:16]}"
    if is_prepared(out) and not _is_whole(out):
        with storage_errors(out), suppress(FileNotFoundError):  # another process may be removing it too
            shutil.rmtree(out)
    prepare(source, built, out, val_fraction=val_fraction, num_threads=num_threads, progress=progress)
    return out


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where cached data lies: the argument, else $PELLUCID_CACHE_DIR, else the platform's cache directory."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("pellucid", appauthor=False)


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


def _alphabet_of(shards: ShardSet) -> Callable[[], list[str]]:
    """A corpus of exactly the saved tokenizer's own entries, from which a `char` one is built again equal."""

    def corpus() -> list[str]:
        saved = load(shards.tokenizer_directory)
        special = set(saved.special_tokens.values())
        return [saved.decode([token for token in range(saved.vocab_size) if token not in special])]

    return corpus
