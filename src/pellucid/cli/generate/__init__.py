"""`pellucid generate`: text for one prompt, for many from a file or a pipe, or in turns on a terminal.

Read in this order: options (what can be asked for) → settings, author (asked for → how it is written) → output, and
command, which joins them; prompts and dialogue are the two ways in besides `--prompt`.
"""

from __future__ import annotations

import typer

from pellucid.cli.generate.command import generate
from pellucid.generate.sampling.presets import listing as presets
from pellucid.generate.strategies import listing as strategies


def register(app: typer.Typer) -> None:
    app.command("generate", epilog=f"\b\n{presets()}\n\n\b\n{strategies()}")(generate)
