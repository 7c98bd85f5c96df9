"""`pellucid push`: an exported model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("push")(push)


def push(
    directory: Annotated[Path, typer.Argument(help="What `pellucid export --to hf` wrote.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if need be.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private; else the hub's default, public.")
    ] = False,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Push it although its parity.json has not passed.")
    ] = False,
    json: Json = False,
) -> int:
    """Upload an exported model to the Hugging Face hub, as one commit.

    pellucid push exports/quick-001 OWNER/NAME --private

    Address and token are those of huggingface_hub: HF_ENDPOINT, HF_TOKEN or `hf auth login`.
    """
    from pellucid.interop import hub

    console = message_console()
    files = hub.files_to_push(directory, unproven=unproven)
    size = sum(file.stat().st_size for file in files)
    console.print(
        f"to {name}: {len(files)} files, {size / 1e6:,.1f} MB: {', '.join(file.name for file in files)}"
    )
    if left := sorted({path.name for path in directory.iterdir()} - {file.name for file in files}):
        console.print(f"left here: {', '.join(left)}", style="dim")
    address = hub.push(directory, name, private=private, unproven=unproven)
    if json:
        print_json({"commit": address, "files": [file.name for file in files]})
    else:
        console.print(f"pushed: {address}; back again: pellucid import {name} --out DIR")
    return 0
