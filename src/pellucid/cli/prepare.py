"""`pellucid prepare`: text → token shards."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.options import DocumentMarker, FaultPolicy, FileFormat, Json, TextField, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import StatusLine, message_console, told

if TYPE_CHECKING:
    from pellucid.data.progress import Progress
    from pellucid.tokenizers import Tokenizer


def register(app: typer.Typer) -> None:
    app.command("prepare")(prepare)


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Text files (.txt .md .jsonl .json .csv .parquet, also .gz .zst .xz), folders, globs, "
            "hub:OWNER/NAME[:CONFIG], builtin:shakespeare, or - for standard input.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the shards go.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            metavar="NAME",
            help="byte, char, gpt2, p50k_base, cl100k_base, o200k_base; or a directory, a tokenizer.json or "
            "OWNER/NAME of Hugging Face's format.",
        ),
    ] = "byte",
    ranks_file: Annotated[
        Path | None,
        typer.Option("--ranks-file", help="The ranks of cl100k_base or o200k_base.", show_default=False),
    ] = None,
    text_field: TextField = "text",
    document_marker: DocumentMarker = None,
    file_format: FileFormat = None,
    errors: FaultPolicy = "strict",
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Keep only the first of equal documents.")
    ] = False,
    source_field: Annotated[
        str | None,
        typer.Option("--source-field", help="Pairs: the field of the source.", show_default=False),
    ] = None,
    target_field: Annotated[
        str | None,
        typer.Option("--target-field", help="Pairs: the field of the target.", show_default=False),
    ] = None,
    special_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--special-token", help="A token added to the tokenizer's own; repeatable.", show_default=False
        ),
    ] = None,
    sentinels: Annotated[
        int, typer.Option("--sentinels", help="Add <extra_id_0> and so on, for span corruption.")
    ] = 0,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Part held out for validation.")
    ] = 0.1,
    shard_tokens: Annotated[int, typer.Option("--shard-tokens", help="Tokens of a shard.")] = 100_000_000,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="How many encode at once; default: one a core.", show_default=False),
    ] = None,
    json: Json = False,
) -> int:
    """Turn text into token shards; the same command goes on where it was stopped.

    \b
    pellucid prepare stories.txt --out data/stories --tokenizer gpt2
    """
    import os

    from pellucid import tokenizers
    from pellucid.data.inspection import report
    from pellucid.data.objectives import sentinel_names
    from pellucid.data.prepare import prepare as prepare_shards
    from pellucid.data.shards import open_shards
    from pellucid.data.sources import open_source, texts

    console = message_console()
    if (source_field is None) != (target_field is None):
        raise ConfigError(
            "--source-field and --target-field name the two sides of a pair; give both or neither"
        )
    pair_fields = (source_field, target_field) if source_field and target_field else None
    with told(console, "pellucid.data"):
        source = open_source(
            *sources,
            text_field=text_field,
            pair_fields=pair_fields,
            document_marker=document_marker,
            errors=errors,
            file_format=file_format,
        )
    added = [*sentinel_names(sentinels), *(special_tokens or [])]
    settings: dict[str, Any] = {
        "kind": tokenizer,
        **({"ranks_file": str(ranks_file)} if ranks_file else {}),
        **({"special_tokens": added} if added else {}),
    }
    built = tokenizers.build(settings, lambda: texts(source))
    status, last = StatusLine(console, after_s=1), None

    def show(progress: Progress) -> None:
        nonlocal last
        last = progress
        status.show(str(progress))

    with told(console, "pellucid.data"):
        manifest = prepare_shards(
            source,
            built,
            out,
            val_fraction=val_fraction,
            shard_tokens=shard_tokens,
            deduplicate=deduplicate,
            workers=(os.cpu_count() or 1) if workers is None else workers,
            progress=show,
        )
    status.clear()
    if last is not None:
        console.print(str(last))
    found = report(open_shards(out))
    if json:
        print_json({"directory": str(out), "fingerprint": manifest.fingerprint, **found})
        return 0
    for line in report_lines(found):
        console.print(line)
    kind = {"kind": built.kind} if built.kind == tokenizer else {"kind": built.kind, "path": tokenizer}
    words = [f"data.path={out}", *(f"data.tokenizer.{k}={_word(v)}" for k, v in (settings | kind).items())]
    preset = "pairs-quick" if pair_fields else "encdec-quick" if sentinels else "quick"
    words += _prompt_words(built, preset)
    console.print(f"next: {shlex.join(['pellucid', 'train', preset, *words])}", style="bold")
    return 0


def _prompt_words(tokenizer: Tokenizer, preset: str) -> list[str]:
    """A prompt for a run's samples, of the tokenizer's own characters, where it may not know those of a preset's."""
    from pellucid.tokenizers import CharTokenizer

    if not isinstance(tokenizer, CharTokenizer) or (preset == "quick" and "\n" in tokenizer.alphabet):
        return []
    letter = next((character for character in tokenizer.alphabet if character.isalpha()), None)
    return ["train.sample_tokens=0" if letter is None else f"train.sample_prompt={letter}"]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def report_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads of `data.inspection.report`."""
    for name in ("train", "val"):
        side = found[name]
        windows = ", ".join(f"{count:,} of {length:,}" for length, count in side["windows"].items())
        yield (
            f"{name}: {side['documents']:,} documents, {side['tokens']:,} tokens, {side['bytes']:,} bytes "
            f"({side['bytes_per_token']:.2f} bytes a token), {side['shards']} shard(s)"
        )
        yield f"  documents: median {side['median_tokens']:,} tokens, longest {side['longest_tokens']:,}" + (
            f"; {side['duplicates']:,} duplicates dropped" if side["duplicates"] else ""
        )
        yield f"  windows: {windows} tokens"
    for reason, what in found["left_out"].items():
        yield f"left out or mended: {what['documents']:,} documents, {reason} (first: {what['first']})"
