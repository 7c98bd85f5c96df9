"""`pellucid plan`: what a run costs before anything is spent."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from pellucid.cli.options import (
    PRESETS_HELP,
    ConfigFile,
    DeviceName,
    Json,
    Quick,
    Words,
    print_json,
    run_config,
)


def register(app: typer.Typer) -> None:
    app.command("plan", epilog=PRESETS_HELP)(plan)


def plan(
    words: Words = None,
    config_file: ConfigFile = None,
    quick: Quick = False,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Parameters, FLOPs and memory of a preset, and how its batch is cut, without training."""
    from pellucid.runtime.device import choose_device
    from pellucid.train.cost import estimate_cost

    config = run_config(words or [], config_file=config_file, quick=quick)
    cost = estimate_cost(config, choose_device(device))
    if json:
        print_json(cost.to_dict())
        return 0
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in cost.rows():
        table.add_row(name, value)
    Console(highlight=False).print(table)
    return 0
