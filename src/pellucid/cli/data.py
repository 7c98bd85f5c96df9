"""`pellucid data inspect`: what a prepared directory holds, and whether it is still what its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.runtime.console import message_console

group = typer.Typer(name="data", help="Look into prepared data.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group)


@group.callback()
def data() -> None:
    """Look into prepared data."""


@group.command("inspect")
def inspect(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made by `pellucid prepare`.")],
    documents: Annotated[int, typer.Option("--documents", min=0, help="How many documents are shown.")] = 3,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How much of each, in tokens.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Which ones.")] = 0,
    json: Json = False,
) -> int:
    """The data passport: verifies every hash, prints statistics, decodes random documents.

    \b
    pellucid data inspect data/stories --documents 5
    """
    from pellucid import tokenizers
    from pellucid.cli.prepare import report_lines
    from pellucid.data.inspection import report, sample_documents
    from pellucid.data.shards import open_shards

    console = message_console()
    shards = open_shards(directory)
    shards.verify()
    tokenizer = tokenizers.load(shards.tokenizer_directory)
    manifest, found = shards.manifest, report(shards)
    samples = list(sample_documents(shards.train, tokenizer, documents, seed=seed, max_tokens=tokens))
    if json:
        passport = {"fingerprint": manifest.fingerprint, "verified": True, **manifest.passport}
        shown = [
            {"number": s.number, "tokens": s.tokens, "text": s.text, "is_cut": s.is_cut} for s in samples
        ]
        print_json({**passport, **found, "samples": shown})
        return 0
    console.print(f"{directory}: every file is what the manifest says (SHA-256)", style="green")
    console.print(f"fingerprint {manifest.fingerprint}")
    console.print(f"tokenizer   {manifest.tokenizer.kind}, {manifest.vocab_size:,} ids ({manifest.dtype})")
    console.print(f"split       {manifest.split.rule}, {manifest.split.val_fraction:g} for validation")
    for file in manifest.source.files[:10]:
        console.print(f"source      {file.name}, {file.size_bytes:,} bytes, SHA-256 {file.sha256[:16]}…")
    if (more := len(manifest.source.files) - 10) > 0:
        console.print(f"            and {more:,} files more")
    for line in report_lines(found):
        console.print(line)
    for sample in samples:
        console.print(
            f"document {sample.number:,} of the training split, {sample.tokens:,} tokens:", style="bold"
        )
        for line in sample.text.splitlines():
            console.print(f"  │ {line}", style="dim")
        if sample.is_cut:
            console.print("  │ …", style="dim")
    return 0
