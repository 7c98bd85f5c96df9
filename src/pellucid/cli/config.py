"""`pellucid config`: every key of a run, its value and its meaning; or where two runs differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import PRESETS_HELP, ConfigFile, Json, Quick, Words, print_json, run_config


def register(app: typer.Typer) -> None:
    app.command("config", epilog=PRESETS_HELP)(config)


def config(
    words: Words = None,
    config_file: ConfigFile = None,
    quick: Quick = False,
    explain: Annotated[bool, typer.Option("--explain", help="With each key's meaning and kinds.")] = False,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--diff", metavar="RUN RUN", help="Where two runs' configs differ.", show_default=False),
    ] = None,
    json: Json = False,
) -> int:
    """Show a preset's config as TOML, ready to be saved, edited and given to --config."""
    from pellucid.config import differences, read_toml, to_toml, to_tree
    from pellucid.config import explain as explained

    if diff is not None:
        trees = [read_toml(path / "config.toml" if path.is_dir() else path) for path in diff]
        lines = differences(trees[0], trees[1])
        if json:
            print_json({"differences": lines})
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines) or "no differences\n")
        return 0
    run = run_config(words or [], config_file=config_file, quick=quick)
    if json:
        print_json(to_tree(run))
    else:
        sys.stdout.write(explained(run) if explain else to_toml(run))
    return 0
