"""`pellucid tokenizer train` and `inspect`: a vocabulary of one's own, and what a text becomes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import DocumentMarker, FaultPolicy, FileFormat, Json, TextField, print_json
from pellucid.errors import DataError
from pellucid.runtime.console import message_console, told

if TYPE_CHECKING:
    from pellucid.data.sources import Source
    from pellucid.tokenizers import Tokenizer

SHIPPED = ("byte", "gpt2", "p50k_base")
"""What is shown where no tokenizer is named."""
SAMPLE = """To be, or not to be: that's the question we'll ask 1,234 times.
def area(r):
    return 3.14159 * r ** 2
Žluťoučký kůň · 语言模型 · 🙂
"""

group = typer.Typer(help="Train a tokenizer, or see how one cuts a text.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="tokenizer")


@group.command()
def train(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="What `prepare` takes: files, folders, builtin:shakespeare."),
    ],
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", help="Ids in all: 256 bytes, the merges, the special tokens.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where its tokenizer.json goes.")],
    pattern: Annotated[
        Literal["gpt2", "cl100k", "qwen2"],
        typer.Option("--pattern", help="How text is cut before pairs of bytes are merged."),
    ] = "gpt2",
    special_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--special-token", help="A token besides <|endoftext|>; repeatable.", show_default=False
        ),
    ] = None,
    text_field: TextField = "text",
    document_marker: DocumentMarker = None,
    file_format: FileFormat = None,
    errors: FaultPolicy = "strict",
    json: Json = False,
) -> int:
    """Learn a byte-level BPE from text.

    pellucid tokenizer train stories.txt --vocab-size 8192 --out data/tokenizer
    """
    from time import perf_counter

    from pellucid.data.sources import open_source
    from pellucid.tokenizers.huggingface import HuggingFaceTokenizer
    from pellucid.tokenizers.stored import TOKENIZER_JSON
    from pellucid.tokenizers.training import train_bpe

    console = message_console()
    start = perf_counter()
    if (out / TOKENIZER_JSON).exists():
        console.print(f"{out}: has a tokenizer.json already, which stays; another is refused", style="yellow")
    with told(console, "pellucid.data"):
        source = open_source(
            *sources,
            text_field=text_field,
            document_marker=document_marker,
            errors=errors,
            file_format=file_format,
        )
        read = _shown(source, console)
        tree = train_bpe(read, vocab_size, pattern=pattern, special_tokens=special_tokens or ())
    tokenizer = HuggingFaceTokenizer(tree)
    _require_same(tokenizer, out)
    tokenizer.save(out)
    if tokenizer.vocab_size < vocab_size:
        console.print(
            f"the text is too small for {vocab_size:,} tokens: it gave {tokenizer.vocab_size:,}, after which no "
            "pair of tokens comes twice; give more text, or take this vocabulary as it is",
            style="yellow",
        )
    if json:
        facts = {
            "vocab_size": tokenizer.vocab_size,
            "wanted": vocab_size,
            "fingerprint": tokenizer.fingerprint,
        }
        print_json({"directory": str(out), **facts})
        return 0
    console.print(f"{out}: {tokenizer.vocab_size:,} tokens, learned in {perf_counter() - start:.1f} s")
    again = ["FILE" if source == "-" else source for source in sources]  # standard input was read to its end
    options = {
        "--text-field": None if text_field == "text" else text_field,
        "--document-marker": document_marker,
        "--format": file_format,
        "--errors": None if errors == "strict" else errors,
    }
    reading = [word for name, value in options.items() if value is not None for word in (name, value)]
    prepare = ["pellucid", "prepare", *again, *reading, "--out", f"{out}-shards", "--tokenizer", str(out)]
    console.print(f"next: {shlex.join(prepare)}", style="bold")
    return 0


@group.command()
def inspect(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOKENIZER]…",
            help="A kind, a directory, a tokenizer.json or a name on the hub; default: those shipped.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="The text.", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="A text file; - is standard input.", show_default=False),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="The numbers too.")] = False,
    json: Json = False,
) -> int:
    """Show how a text is cut, by several tokenizers side by side.

    pellucid tokenizer inspect gpt2 data/tokenizer --file stories.txt
    """
    from pellucid.report.tokens import cut, print_cuts

    whole = _text(text, file)
    cuts = [cut(name, _open(name, whole), whole) for name in names or SHIPPED]
    if not json:
        print_cuts(cuts, Console(highlight=False, markup=False), with_ids=ids)
        return 0
    for one in cuts:
        print_json({**one.to_dict(), **({"ids": list(one.ids)} if ids else {})})
    return 0


def _require_same(tokenizer: Tokenizer, out: Path) -> None:
    """Raise DataError where a directory holds a tokenizer.json that is not this tokenizer's."""
    from tempfile import TemporaryDirectory

    from pellucid.tokenizers.stored import TOKENIZER_JSON

    there = out / TOKENIZER_JSON
    if not there.exists():
        return
    with TemporaryDirectory(prefix="pellucid-") as aside:
        tokenizer.save(Path(aside))
        if there.read_bytes() != (Path(aside) / TOKENIZER_JSON).read_bytes():
            raise DataError(f"{there}: another tokenizer is here already; name another directory with --out")


def _shown(source: Source, console: Console) -> Iterator[str]:
    """The texts, as they are read; says every other second how much that was. Raises DataError where there is none."""
    from time import monotonic

    from pellucid.data.sources import Faults, documents

    done, count, said = 0, 0, monotonic()
    faults = Faults(source.reading.errors)
    for document in documents(source, faults):
        yield document.text
        done, count = done + len(document.text), count + 1
        if monotonic() - said >= 2:
            console.print(f"{count:,} texts, {done / 1e6:,.1f} million characters", style="dim")
            said = monotonic()
    for reason, number in faults.counts.items():
        console.print(f"left out or mended: {number:,} documents, {reason} (first: {faults.first[reason]})")
    if count == 0:
        raise DataError(f"{source.name}: no document has any text; give files with text in them")
    console.print(f"{count:,} texts, {done / 1e6:,.1f} million characters: learning the merges", style="dim")


def _text(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise DataError("--text and --file: give one of them")
    if file is None:
        return SAMPLE if text is None else text
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not UTF-8 text: byte {data[error.start]:#04x} at {error.start}; convert it, or take another file"
        ) from None


def _open(name: str, text: str) -> Tokenizer:
    """A tokenizer by kind, path or name; of a directory that Pellucid saved, the one it describes."""
    from pellucid import tokenizers
    from pellucid.tokenizers.stored import FILE_NAME

    if (Path(name) / FILE_NAME).is_file():
        return tokenizers.load(Path(name))
    return tokenizers.build(name, lambda: [text])
