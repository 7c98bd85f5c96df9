"""The same preparation over many machines, as two steps of datatrove's executors (local, Slurm, Ray).

    job = plan_job(["/shared/corpus"], "gpt2", "/shared/prepared/corpus")
    encode = SlurmPipelineExecutor([EncodePortions(job)], tasks=64, logging_dir=…, time=…, partition=…)
    SlurmPipelineExecutor([AssembleShards(job)], tasks=1, depends=encode, logging_dir=…, …).run()

or `prepare_scaled`, which does all of that. Task r of W encodes the portions r, r + W, … of the source, each into
one part: a file of encoded blocks in `OUT.parts`. Then one task gives the parts in their order to the assembler
that a local preparation has, so that `OUT` is the same to the byte, whatever W is. A portion is some stored bytes
of a file; a file that cannot be cut (compressed, .json, .csv) is one portion, and so is a single running text,
which one task encodes alone.

What must be shared by all machines: the source's files under one path, and the folder that `OUT` is in.
A part is there when it is whole. Whatever is killed, the same call makes the parts that are missing.
Where datatrove is not installed, importing this module raises MissingLibraryError.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pellucid import tokenizers
from pellucid.config import Config, from_tree
from pellucid.data.assembly import Assembler, Journal
from pellucid.data.encoding import BlockEncoder, Division, EncodedBlock
from pellucid.data.manifest import (
    TOKENIZER,
    Manifest,
    Recipe,
    is_prepared,
    read_manifest,
    sha256_json,
)
from pellucid.data.parts import Part
from pellucid.data.prepare import (
    SHARD_TOKENS,
    already_prepared,
    assemble,
    begun,
    encoder_for,
    encoding_of,
    expected_bytes,
    locked,
    plan,
    require_free,
    survey,
)
from pellucid.data.sources import open_source
from pellucid.data.sources.base import Block, Place, Portion, Reading, Source, texts
from pellucid.data.sources.builtin import PREFIX as BUILTIN
from pellucid.data.sources.folders import STANDARD_INPUT
from pellucid.data.sources.hub import PREFIX as HUB
from pellucid.errors import ConfigError, DataError, WorkerError
from pellucid.runtime.extras import require
from pellucid.runtime.files import (
    remove_leftovers,
    require_space,
    require_writable,
    storage_errors,
    write_atomic,
)
from pellucid.tokenizers import Tokenizer, TokenizerConfig
from pellucid.tokenizers.accelerate import fastest_encoder

require("datatrove", extra="cluster", purpose="preparing data on several machines")

from datatrove.executor import (  # noqa: E402  (after the hint for those who have no datatrove)
    LocalPipelineExecutor,
    RayPipelineExecutor,
    SlurmPipelineExecutor,
)
from datatrove.executor.base import PipelineExecutor  # noqa: E402
from datatrove.pipeline.base import PipelineStep  # noqa: E402

PORTION_BYTES = 64 << 20
"""Stored bytes of the source in a part: what a kill costs at most, a task."""

_JOB = "job.json"
_log = logging.getLogger(__name__)

ExecutorFactory = Callable[..., PipelineExecutor]
"""Makes an executor of (pipeline, *, tasks, workers, logging_dir, skip_completed): datatrove's class with what
your cluster wants filled in, such as partial(SlurmPipelineExecutor, partition="cpu", time="04:00:00")."""

_FACTORIES: Mapping[str, ExecutorFactory] = {
    # A fork server would outlive the call, and go on printing into the log of the first.
    "local": partial(LocalPipelineExecutor, start_method="spawn"),
    "ray": RayPipelineExecutor,
    "slurm": SlurmPipelineExecutor,
}


@dataclass(frozen=True)
class Job:
    """A preparation that many machines share. It can be pickled, and has all that a task needs to know."""

    source: Source
    recipe: Recipe
    division: Division
    out: Path
    portion_bytes: int
    accelerated: bool
    """Whether a faster encoder has proved equal to the tokenizer's own on this source."""

    @property
    def parts(self) -> Path:
        """The folder of the parts, which goes when the shards are whole."""
        return self.out.with_name(f"{self.out.name}.parts")

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of what determines every part."""
        return sha256_json([self.recipe.key, self.division.rule, self.division.limit, self.portion_bytes])

    @cached_property
    def portions(self) -> Sequence[Portion]:
        return self.source.portions(self.portion_bytes)

    def part(self, number: int) -> Part:
        path = self.parts / f"{number:06d}.blocks"
        return Part(path, self.key, number, self.recipe.dtype, self.recipe.source.errors)

    def missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        """The numbers of the portions, of these or of all, that are not encoded yet."""
        asked = range(len(self.portions)) if numbers is None else numbers
        return [number for number in asked if not self.part(number).is_there()]

    def tokenizer(self) -> Tokenizer:
        return tokenizers.load(self.parts / TOKENIZER)

    def encoder(self, tokenizer: Tokenizer) -> BlockEncoder:
        encode = fastest_encoder(tokenizer).encode_batch if self.accelerated else tokenizer.encode_batch
        return BlockEncoder(tokenizer, encoding_of(self.recipe, self.division), encode)

    def blocks(self, number: int, *, whole: bool) -> Iterator[Block]:
        """The blocks of a portion. whole: see `Source.blocks`."""
        if self.source.is_single_text:
            return self.source.blocks(whole=whole)
        return self.source.portion_blocks(self.portions[number])

    def encoded(self, assembler: Assembler) -> Generator[EncodedBlock]:
        """The blocks that an assembler needs next, out of the parts."""
        for number in range(len(self.portions)):
            for begin, block in self.part(number).read():
                if block.end <= assembler.next:
                    continue
                if begin < assembler.next:
                    raise DataError(
                        f"{self.out}: was begun by a preparation on one machine, up to a place inside a block of "
                        f"{self.part(number).path.name}; go on with that one, or remove the directory"
                    )
                yield block


def prepare_scaled(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: str | Mapping[str, Any] | TokenizerConfig | Tokenizer,
    out: str | os.PathLike[str],
    *,
    executor: Literal["local", "ray", "slurm"] | ExecutorFactory,
    tasks: int,
    workers: int = -1,
    options: Mapping[str, Any] | None = None,
    logs: str | os.PathLike[str] | None = None,
    reading: Reading | None = None,
    file_format: str | None = None,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    deduplicate: bool = False,
    portion_bytes: int = PORTION_BYTES,
) -> Manifest | None:
    """Prepare a source with the tasks of a datatrove executor. The result is that of `prepare`, to the byte.

    paths, reading, file_format: see `open_source`. executor: the name of one of datatrove's, made with `options`,
    or what makes it (`ExecutorFactory`). tasks: into how many the encoding is divided. workers: how many run at
    once; -1: as many as there are. logs: where datatrove writes its logs, and this call what datatrove and Ray
    print (`launch.log`); by default `OUT.logs`. The rest is as in `prepare` and `plan_job`.

    Returns the manifest; with Slurm None, once the jobs are submitted. The same call goes on where one was killed
    or failed, also with other tasks, workers or another executor. Raises what `prepare` raises, WorkerError when
    tasks have failed without a word here (Ray), and what datatrove raises.
    """
    factory = _factory(executor) if isinstance(executor, str) else executor
    if tasks < 1:
        raise ConfigError(f"tasks: wanted at least 1, not {tasks}")
    job = plan_job(
        paths,
        tokenizer,
        out,
        reading=reading,
        file_format=file_format,
        val_fraction=val_fraction,
        shard_tokens=shard_tokens,
        deduplicate=deduplicate,
        portion_bytes=portion_bytes,
    )
    if (made := already_prepared(job.out, job.recipe)) is not None:
        return made
    folder = _absolute(logs) if logs else job.out.with_name(f"{job.out.name}.logs")

    def made_of(step: PipelineStep, name: str, **settings: Any) -> PipelineExecutor:
        given = {"logging_dir": str(folder / name), "skip_completed": False, **(options or {}), **settings}
        return factory([step], **given)

    missing = job.missing()
    _log.info("%s: %d of %d parts to encode; logs: %s", job.out, len(missing), len(job.portions), folder)
    encode_tasks = min(tasks, len(job.portions))
    with _printing_to(folder / "launch.log"), _main_hidden() if executor == "local" else nullcontext():
        encode = made_of(EncodePortions(job), "encode", tasks=encode_tasks, workers=workers)
        final = made_of(AssembleShards(job), "assemble", tasks=1, workers=1)
        if isinstance(final, SlurmPipelineExecutor):  # returns at once, and waits for the other by itself
            if missing:
                assert isinstance(encode, SlurmPipelineExecutor)
                final.depends = encode
            final.run()
        else:
            if missing:
                encode.run()
            _require_parts(job, folder)
            final.run()
    if isinstance(final, SlurmPipelineExecutor):
        _log.info("%s: submitted; the last Slurm job is %s", job.out, final.job_id)
        return None
    if not is_prepared(job.out):
        raise WorkerError(
            f"{job.out}: was not assembled; {folder / 'assemble'} says why. Then run the same again"
        )
    return read_manifest(job.out)


def _factory(name: str) -> ExecutorFactory:
    """Raises ConfigError for a name that there is not, and for Slurm where it is not."""
    if name not in _FACTORIES:
        raise ConfigError(f"executor: wanted one of {', '.join(_FACTORIES)}, or what makes one, not {name!r}")
    if name == "ray":
        require("ray", extra="cluster", purpose="preparing data on a Ray cluster")
    if name == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "executor: slurm wants the command sbatch, which is not here; call it where jobs are submitted"
        )
    return _FACTORIES[name]


def plan_job(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: str | Mapping[str, Any] | TokenizerConfig | Tokenizer,
    out: str | os.PathLike[str],
    *,
    reading: Reading | None = None,
    file_format: str | None = None,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    deduplicate: bool = False,
    portion_bytes: int = PORTION_BYTES,
) -> Job:
    """The job of a preparation, and its folder `OUT.parts` with the tokenizer in it. Nothing is encoded yet.

    Reads the source's files once, to hash them; a hub gives its hashes. portion_bytes: stored bytes of the source
    in a part. Call it where no other job on `out` is running: what a killed one was writing is removed.
    Raises what `prepare` raises before it begins, and DataError where `OUT.parts` holds parts of something else.
    """
    if portion_bytes < 1:
        raise ConfigError(f"portion_bytes: wanted at least 1, not {portion_bytes}")
    source = open_source(
        *map(_for_every_machine, paths), file_format=file_format, **asdict(reading or Reading())
    )
    built = _built(tokenizer, source)
    recipe = plan(
        source, built, val_fraction=val_fraction, shard_tokens=shard_tokens, deduplicate=deduplicate
    )
    out = _absolute(out)
    seen = survey(source, recipe)
    encoder = encoder_for(built, source, seen.sample)
    job = Job(source, recipe, seen.division, out, portion_bytes, encoder.is_accelerated)
    if already_prepared(out, recipe) is not None:
        shutil.rmtree(job.parts, ignore_errors=True)
        return job
    require_free(out)
    require_writable(out.parent)
    if not _is_planned(job):
        needed = 2 * expected_bytes(source, recipe, encoder, seen.sample)  # the parts, and then the shards
        require_space(out, needed, purpose=f"preparing {source.name}")
        built.save(job.parts / TOKENIZER)
        planned = _Planned(recipe=recipe, portion_bytes=portion_bytes)
        write_atomic(job.parts / _JOB, planned.model_dump_json(exclude_defaults=True))
    remove_leftovers(job.parts)
    return job


def _built(tokenizer: str | Mapping[str, Any] | TokenizerConfig | Tokenizer, source: Source) -> Tokenizer:
    if isinstance(tokenizer, str | Mapping | Config):
        return tokenizers.build(tokenizer, lambda: texts(source))
    return tokenizer


def _for_every_machine(path: str | os.PathLike[str]) -> str:
    """A path that means the same in whatever directory a task runs."""
    word = os.fspath(path)
    if word == STANDARD_INPUT:
        raise ConfigError(
            "standard input cannot be read on several machines; write it to a file they all see"
        )
    return word if word.startswith((BUILTIN, HUB)) else str(_absolute(word))


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()


class _Planned(Config):
    """job.json: what the parts beside it are of."""

    recipe: Recipe
    portion_bytes: int


def _is_planned(job: Job) -> bool:
    """Whether the job was begun before. Raises DataError where another one was."""
    path = job.parts / _JOB
    if not path.is_file():
        return False
    planned = from_tree(_Planned, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    differences = planned.recipe.differences(job.recipe)
    if planned.portion_bytes != job.portion_bytes:
        differences.append(f"portion_bytes: {planned.portion_bytes:,} there, {job.portion_bytes:,} asked for")
    if differences:
        raise DataError(
            f"{job.parts}: holds parts of another preparation; remove the folder, or name another directory for the "
            "result:" + "".join(f"\n  {line}" for line in differences)
        )
    return True


# The steps --------------------------------------------------------------------------------------------


class EncodePortions(PipelineStep):
    """Task r of W encodes the portions r, r + W, … that are not encoded yet, a part each."""

    name = "encode portions"
    type = "pellucid"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        missing = self.job.missing(range(rank, len(self.job.portions), world_size))
        if not missing:
            return data
        tokenizer = self.job.tokenizer()
        encode = self.job.encoder(tokenizer)
        for number in missing:
            blocks = self.job.blocks(number, whole=not tokenizer.cuts_at_words)
            with self.track_time("part"), storage_errors(self.job.parts):
                self.job.part(number).write(self._encoded(blocks, encode))
            self.stat_update("parts")
        return data

    def _encoded(
        self, blocks: Iterator[Block], encode: BlockEncoder
    ) -> Generator[tuple[Place, EncodedBlock]]:
        for block in blocks:
            encoded = encode(block)
            yield block.begin, encoded
            for side in (encoded.train, encoded.val):
                self.stat_update("documents", value=len(side.starts), unit="block")
                self.stat_update("tokens", value=len(side.ids), unit="block")
            for reason, found in encoded.faults.counts.items():
                self.stat_update(f"left out or mended: {reason}", value=found, unit="block")


class AssembleShards(PipelineStep):
    """One task makes the shards and the manifest of all parts, and removes the parts."""

    name = "assemble shards"
    type = "pellucid"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Raises ConfigError when there are several tasks, DataError when a part is missing or damaged."""
        if world_size != 1:
            raise ConfigError(
                f"AssembleShards: wanted tasks=1, not {world_size}: shards are written in order"
            )
        with self.track_time("preparation"):
            manifest = _assembled(self.job)
        for split in (manifest.train, manifest.val):
            self.stat_update("documents", value=split.documents, unit="split")
            self.stat_update("tokens", value=split.tokens, unit="split")
            self.stat_update("shards", value=len(split.shards), unit="split")
        return data


def _assembled(job: Job) -> Manifest:
    with locked(job.out):
        made = already_prepared(job.out, job.recipe)
        if made is None:
            _require_parts(job)
            require_free(job.out)
            journal = begun(job.out, job.recipe)
            made = assemble(
                job.encoded,
                job.tokenizer(),
                job.out,
                journal or Journal(recipe=job.recipe, division=(job.division.rule, job.division.limit)),
                total_bytes=job.source.size_bytes,
            )
        shutil.rmtree(job.parts, ignore_errors=True)
    return made


def _require_parts(job: Job, logs: Path | None = None) -> None:
    if missing := job.missing():
        raise WorkerError(
            f"{job.parts}: {len(missing)} of {len(job.portions)} parts are missing (the first: "
            f"{job.part(missing[0]).path.name}), because tasks have failed or were killed"
            + (f"; {logs / 'encode'} says why" if logs else "")
            + ". The others are kept: run the same again"
        )


@contextmanager
def _printing_to(path: Path) -> Generator[None]:
    """What is printed here meanwhile, and by the processes that are started, is added to a file."""
    from datatrove.utils.logging import logger, setup_default_logger

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for a Ray that this call starts
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with file, redirect_stdout(file), redirect_stderr(file):
            for descriptor in kept:
                os.dup2(file.fileno(), descriptor)
            setup_default_logger()
            yield
            logger.complete()
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        setup_default_logger()


@contextmanager
def _main_hidden() -> Generator[None]:
    """Processes that are spawned meanwhile do not import the caller's script, which would call this again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
