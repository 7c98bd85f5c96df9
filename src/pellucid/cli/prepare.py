"""`pellucid prepare`: text → token shards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("prepare")(prepare)


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help=".txt and .jsonl files, folders, or builtin:shakespeare."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the shards go.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="byte, char, gpt2, p50k_base, cl100k_base or o200k_base.")
    ] = "byte",
    ranks_file: Annotated[
        Path | None,
        typer.Option("--ranks-file", help="The ranks of cl100k_base or o200k_base.", show_default=False),
    ] = None,
    text_field: Annotated[str, typer.Option("--text-field", help="The field of .jsonl lines.")] = "text",
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Part held out for validation.")
    ] = 0.1,
    json: Json = False,
) -> int:
    """Turn text into token shards: pellucid prepare stories.txt --out data/stories --tokenizer gpt2"""
    import os

    from pellucid import tokenizers
    from pellucid.data.prepare import prepare as prepare_shards
    from pellucid.data.sources import open_source
    from pellucid.data.sources.base import JoinedSources

    console = message_console()
    opened = [open_source(source, text_field=text_field) for source in sources]
    source = opened[0] if len(opened) == 1 else JoinedSources(opened)
    settings = {"kind": tokenizer, **({"ranks_file": str(ranks_file)} if ranks_file else {})}
    built = tokenizers.build(settings, lambda: (document.text for document in source.documents()))

    def show(done: int, total: int) -> None:
        console.print(f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

    manifest = prepare_shards(
        source, built, out, val_fraction=val_fraction, num_threads=os.cpu_count() or 1, progress=show
    )
    sides = {"train": manifest.train, "val": manifest.val}
    if json:
        counts = {
            n: {"documents": s.documents, "tokens": s.tokens, "bytes": s.bytes} for n, s in sides.items()
        }
        print_json({"directory": str(out), "fingerprint": manifest.fingerprint, **counts})
        return 0
    for name, side in sides.items():
        console.print(
            f"{name}: {side.documents:,} documents, {side.tokens:,} tokens, {side.bytes:,} bytes "
            f"({side.bytes / side.tokens:.2f} bytes a token)"
        )
    words = [f"data.path={out}", f"data.tokenizer.kind={tokenizer}"]
    words += [f"data.tokenizer.ranks_file={ranks_file}"] if ranks_file else []
    console.print(f"next: {shlex.join(['pellucid', 'train', 'quick', *words])}", style="bold")
    return 0
