"""`pellucid prepare`: text → token shards."""

from __future__ import annotations

import shlex
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.errors import ConfigError
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
    json: Json = False,
) -> int:
    """Turn text into token shards: pellucid prepare stories.txt --out data/stories --tokenizer gpt2"""
    import os

    from pellucid import tokenizers
    from pellucid.data.objectives import sentinel_names
    from pellucid.data.prepare import prepare as prepare_shards
    from pellucid.data.sources import open_source, texts

    console = message_console()
    if (source_field is None) != (target_field is None):
        raise ConfigError(
            "--source-field and --target-field name the two sides of a pair; give both or neither"
        )
    pair_fields = (source_field, target_field) if source_field and target_field else None
    source = open_source(*sources, text_field=text_field, pair_fields=pair_fields)
    added = [*sentinel_names(sentinels), *(special_tokens or [])]
    settings = {
        "kind": tokenizer,
        **({"ranks_file": str(ranks_file)} if ranks_file else {}),
        **({"special_tokens": added} if added else {}),
    }
    built = tokenizers.build(settings, lambda: texts(source))

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
    words += [f"data.tokenizer.special_tokens={dumps(added)}"] if added else []
    preset = "pairs-quick" if pair_fields else "encdec-quick" if sentinels else "quick"
    console.print(f"next: {shlex.join(['pellucid', 'train', preset, *words])}", style="bold")
    return 0
