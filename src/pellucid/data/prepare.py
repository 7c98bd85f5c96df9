"""Source × tokenizer → a prepared directory: token shards of both sides of the split, and a manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from pellucid.data.assembly import Assembler, Journal, read_journal, remove_journal, remove_unfinished
from pellucid.data.encoding import (
    BlockEncoder,
    Division,
    EncodedBlock,
    Encoding,
    content_hash,
    digest,
)
from pellucid.data.manifest import (
    JOURNAL,
    TOKENIZER,
    Manifest,
    Recipe,
    SplitRule,
    TokenizerRecord,
    dtype_for,
    is_prepared,
    write_manifest,
)
from pellucid.data.progress import Clock, Report
from pellucid.data.shards import PARTIAL, ids_dtype, open_shards
from pellucid.data.sources.base import Block, Source, characters, documents
from pellucid.data.workers import Setup, in_order, process_workers
from pellucid.errors import ConfigError, DataError, UserError
from pellucid.runtime.files import fsync_directory, require_space, require_writable, storage_errors
from pellucid.tokenizers import Tokenizer
from pellucid.tokenizers.accelerate import Encoder, fastest_encoder, start_early

SHARD_TOKENS = 100_000_000

_SAMPLE_CHARACTERS = 1 << 20
_FEW_BYTES = 64 << 20
"""A source of fewer bytes is done before worker processes would have started: threads do it."""
_FEW_WORKERS = 2
"""So many threads with the fast encoder hardly wait for each other's interpreter lock. More are processes."""
_TOO_FEW_BYTES = 4 << 20
"""A source of fewer bytes is encoded before a faster encoder would have started."""
_EXPANSION = {".gz": 5, ".xz": 7, ".zst": 5, ".parquet": 4}
"""How many bytes of text a stored byte becomes, about, at the most; 1 for what is not compressed."""

_log = logging.getLogger(__name__)


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    out: Path,
    *,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    deduplicate: bool = False,
    workers: int = 1,
    progress: Report | None = None,
    save_every_s: float = 10.0,
) -> Manifest:
    """Encode a source into the directory `out`, whose manifest is written last.

    Every document is ended by the tokenizer's end-of-text id where it has one; a single text is not. A pair is
    two documents, its source and its target, in which special tokens are parsed (a source may hold sentinels);
    in single texts they are plain text. How the text is split is in `SplitRule`.
    deduplicate: keep only the first of equal documents. workers: how many encode at once; neither they nor an
    interruption change a byte of the result. In memory at a time: some millions of characters for each worker,
    or one document. save_every_s: how much work a kill may cost; finished shards are never made again.

    When `out` was already made from the same source, tokenizer and settings it is used as it is, and when it was
    begun it is gone on with (both logged at level INFO). Raises DataError when `out` holds anything else, when
    the input is bad or too short to be split; StorageError when the disk is full or `out` cannot be written.
    What was finished stays, and the same call goes on from there; where no shard was, nothing is left.
    """
    if source.size_bytes >= _TOO_FEW_BYTES:
        start_early(tokenizer)
    recipe = plan(
        source, tokenizer, val_fraction=val_fraction, shard_tokens=shard_tokens, deduplicate=deduplicate
    )
    if workers < 1:
        raise ConfigError(f"workers: wanted at least 1, not {workers}")
    if (made := already_prepared(out, recipe)) is not None:
        return made
    require_writable(out.parent)
    with locked(out):
        if (made := already_prepared(out, recipe)) is not None:  # another process was faster
            return made
        require_free(out)
        journal = begun(out, recipe)
        if journal is None:
            seen = survey(source, recipe)
            sample = seen.sample
            journal = Journal(recipe=recipe, division=(seen.division.rule, seen.division.limit))
        else:
            sample = sample_of(source)
        encoder = encoder_for(tokenizer, source, sample)
        remaining = 1 - journal.source_bytes / max(1, source.size_bytes)
        expected = int(expected_bytes(source, recipe, encoder, sample) * remaining)
        require_space(out, expected, purpose=f"preparing {source.name}")
        return assemble(
            partial(_encoded_here, source, tokenizer, encoder, recipe, out, workers),
            tokenizer,
            out,
            journal,
            total_bytes=source.size_bytes,
            report=progress,
            save_every_s=save_every_s,
        )


def plan(
    source: Source,
    tokenizer: Tokenizer,
    *,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    deduplicate: bool = False,
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
        dtype=dtype_for(tokenizer.vocab_size),
        vocab_size=tokenizer.vocab_size,
        shard_tokens=shard_tokens,
        tokenizer=TokenizerRecord.of(tokenizer, marks_ends=not source.is_single_text),
        source=record,
        split=SplitRule(rule="tail" if source.is_single_text else "content-hash", val_fraction=val_fraction),
        special_tokens=None if record.pair_fields is None else "parsed",
        deduplicated=deduplicate and not source.is_single_text,
    )


def encoding_of(recipe: Recipe, division: Division) -> Encoding:
    """The settings of every worker that makes what the recipe says."""
    return Encoding(
        dtype=recipe.dtype,
        vocab_size=recipe.vocab_size,
        end_of_text_id=recipe.tokenizer.end_of_text_id,
        division=division,
        parses_special=recipe.special_tokens is not None,
        errors=recipe.source.errors,
    )


# The directory --------------------------------------------------------------------------------------


def require_free(out: Path) -> None:
    """Raise DataError unless `out` is new, empty, or holds nothing but a preparation of ours."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file is in the way; name a directory that does not exist yet")
    if not out.is_dir() or (out / JOURNAL).is_file():
        return
    if any(not file.name.endswith(PARTIAL) for file in out.iterdir()):
        raise DataError(
            f"{out}: holds other files; name a directory that does not exist yet, or an empty one"
        )


def already_prepared(out: Path, recipe: Recipe) -> Manifest | None:
    """The manifest of a prepared directory; None where `out` is none. Raises DataError for another recipe's."""
    if not is_prepared(out):
        return None
    manifest = open_shards(out).manifest
    if manifest.key != recipe.key:
        raise DataError(
            f"{out}: holds data prepared in another way; name another directory:{_differences(manifest, recipe)}"
        )
    remove_journal(out)  # where a kill came after the manifest
    _log.info("%s: already prepared from the same source and tokenizer; used as it is", out)
    return manifest


def begun(out: Path, recipe: Recipe) -> Journal | None:
    """The journal to go on from. Another preparation is removed where it has finished no shard yet."""
    journal = read_journal(out)
    if journal is not None and journal.recipe.key == recipe.key:
        _log.info("%s: going on after %s bytes of the source", out, f"{journal.source_bytes:,}")
        return journal
    if journal is not None and journal.finished_shards:
        raise DataError(
            f"{out}: holds an unfinished preparation of something else, with {journal.finished_shards} finished "
            f"shard(s); remove the directory or name another:{_differences(journal.recipe, recipe)}"
        )
    remove_unfinished(out)
    return None


def _differences(found: Recipe, asked: Recipe) -> str:
    return "".join(f"\n  {line}" for line in found.differences(asked))


@contextmanager
def locked(out: Path) -> Generator[None]:
    """Only one process prepares `out`; another waits, and then finds it prepared."""
    path = out.absolute().with_name(f".{out.absolute().name}.lock")
    with storage_errors(path):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("%s: another process is preparing it; waiting", out)
            lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before it is released: who waits for it looks at `out` once more
        lock.release()


# The work -------------------------------------------------------------------------------------------


def assemble(
    encoded: Callable[[Assembler], Generator[EncodedBlock]],
    tokenizer: Tokenizer,
    out: Path,
    journal: Journal,
    *,
    total_bytes: int,
    report: Report | None = None,
    save_every_s: float = 10.0,
) -> Manifest:
    """Write the shards of encoded blocks, then the manifest. The caller has `out` locked.

    encoded: gives the blocks of the source from the assembler's `next` on, in order. Raises what it raises, and
    StorageError; what was finished stays, and where no shard was, nothing is left.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        assembler = Assembler(out, journal)
        try:
            tokenizer.save(out / TOKENIZER)
            clock = Clock(assembler, total_bytes)
            with closing(encoded(assembler)) as blocks:
                for block in blocks:
                    assembler.add(block)
                    if assembler.has_new_shard or clock.since_saved_s > save_every_s:
                        assembler.save()
                        clock.saved()
                    if report is not None:
                        report(clock.progress())
            manifest = assembler.finish()
            write_manifest(out, manifest)
            fsync_directory(out)
            remove_journal(out)
        except (UserError, OSError):  # after any other end, such as a worker's, the same call goes on
            assembler.close()
            if not assembler.has_shards:
                remove_unfinished(out)
            raise
        except KeyboardInterrupt:
            if assembler.is_between_blocks:
                assembler.save()
            _log.warning("%s: stopped; the same call goes on from there", out)
            raise
        finally:
            assembler.close()
        return manifest


def _encoded_here(
    source: Source,
    tokenizer: Tokenizer,
    encoder: Encoder,
    recipe: Recipe,
    out: Path,
    workers: int,
    assembler: Assembler,
) -> Generator[EncodedBlock]:
    """The blocks that the assembler needs next, encoded on this machine."""
    settings = encoding_of(recipe, assembler.division)
    with _workers(source, tokenizer, encoder, settings, out, workers) as encode_in_order:
        yield from encode_in_order(source.blocks(assembler.next, whole=not tokenizer.cuts_at_words))


@contextmanager
def _workers(
    source: Source, tokenizer: Tokenizer, encoder: Encoder, settings: Encoding, out: Path, workers: int
) -> Generator[Callable[[Iterable[Block]], Iterator[EncodedBlock]]]:
    encode = BlockEncoder(tokenizer, settings, encoder.encode_batch)
    if workers == 1:
        yield partial(map, encode)
    elif source.size_bytes < _FEW_BYTES or (workers <= _FEW_WORKERS and encoder.is_accelerated):
        with ThreadPoolExecutor(workers, thread_name_prefix="pellucid-encode") as executor:
            yield partial(in_order, encode=encode, executor=executor, workers=workers)
    else:
        setup = Setup(out / TOKENIZER, settings, accelerated=encoder.is_accelerated)
        with process_workers(setup, workers) as (executor, encode_there):
            yield partial(in_order, encode=encode_there, executor=executor, workers=workers)


def encoder_for(tokenizer: Tokenizer, source: Source, sample: tuple[str, ...]) -> Encoder:
    """The fastest one that is equal on the sample; where there is little to encode, the tokenizer's own."""
    if source.size_bytes < _TOO_FEW_BYTES:
        return Encoder(tokenizer.kind, tokenizer.encode_batch, note="")
    encoder = fastest_encoder(tokenizer, sample)
    _log.info("%s", encoder.note)
    return encoder


# Before it ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """What was seen of the source before anything was encoded."""

    division: Division
    sample: tuple[str, ...]
    """The first texts, or the beginning of the first."""


def survey(source: Source, recipe: Recipe) -> Survey:
    """Find the border between the sides. Reads one running text once, of documents as many as that takes."""
    fraction = recipe.split.val_fraction
    if recipe.split.rule == "tail":
        length = characters(source)
        border = int(length * (1 - fraction))
        if not 0 < border < length:
            first = next(documents(source))
            raise DataError(
                f"{first.where}: {length:,} characters cannot be split with a validation part of {fraction}; give "
                "more text or another data.val_fraction"
            )
        return Survey(Division("tail", border), sample_of(source))
    return _survey_by_hash(source, fraction)


class _Sample:
    """The first texts that it is given, about a million characters."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._room = _SAMPLE_CHARACTERS

    @property
    def is_full(self) -> bool:
        return self._room <= 0

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            if not self.is_full:
                self._texts.append(text[: self._room])
                self._room -= len(text)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._texts)


def sample_of(source: Source) -> tuple[str, ...]:
    """The first texts of a source, about a million characters."""
    sample = _Sample()
    for document in documents(source):
        sample.add(document.texts)
        if sample.is_full:
            break
    return sample.texts


def _survey_by_hash(source: Source, val_fraction: float) -> Survey:
    """Texts with a hash below the limit are for validation. Reads only until both sides are seen to have one."""
    limit = int(val_fraction * (1 << 64))
    lowest, highest = 1 << 64, -1
    is_paired = False
    sample = _Sample()
    for document in documents(source):
        is_paired = document.target is not None
        value = content_hash(digest([text.encode() for text in document.texts]))
        lowest, highest = min(lowest, value), max(highest, value)
        sample.add(document.texts)
        if lowest < limit <= highest and sample.is_full:
            break
    if lowest < limit <= highest:
        return Survey(Division("content-hash", limit), sample.texts)
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
    limit = lowest + 1 if lowest >= limit else highest
    return Survey(Division("content-hash", limit), sample.texts)


def expected_bytes(source: Source, recipe: Recipe, encoder: Encoder, sample: tuple[str, ...]) -> int:
    """What the shards will take, from the source's sizes and the sample's ids, and a tenth more."""
    ids, _ = encoder.encode_batch(sample)
    sample_bytes = sum(len(text.encode()) for text in sample)
    id_bytes = ids_dtype(recipe.dtype).itemsize
    taken = len(ids) * id_bytes + len(sample) * (id_bytes + 8)  # an end of text and a start for each
    text_bytes = sum(
        file.size_bytes * _EXPANSION.get(PurePosixPath(file.name).suffix.lower(), 1)
        for file in recipe.source.files
    )
    return int(1.1 * text_bytes * taken / sample_bytes)
