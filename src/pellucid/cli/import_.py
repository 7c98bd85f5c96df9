"""`pellucid import`: a model from elsewhere, as a checkpoint to evaluate, generate from and go on training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.runtime.console import message_console, told


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A directory of Hugging Face's, a .gguf file, or OWNER/NAME[@REVISION] of the hub."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The directory of the new checkpoint.")],
    json: Json = False,
) -> int:
    """Read a model of another project, compare it with that project's own code, and write a checkpoint.

    pellucid import my-model --out imported · pellucid train quick --init imported data.tokenizer=my-model
    """
    from pellucid.interop import hub
    from pellucid.interop.exchange import import_model

    console = message_console()
    with told(console, hub.__name__):
        path = hub.locate(source)
    receipt = import_model(path, out, name=None if path == Path(source) else source)
    for line in receipt.lines():
        console.print(line)
    if json:
        print_json({"out": str(out), "receipt": receipt.to_dict()})
    else:
        console.print(f"written: {out}; try it: pellucid generate {out}")
    return 0
