"""`pellucid plan`: what a run costs before anything is spent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

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
    initial_weights: Annotated[
        bool, typer.Option("--initial-weights", help="What each parameter gets before training.")
    ] = False,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Parameters, FLOPs and memory of a preset, and how its batch is cut, without training."""
    from pellucid.model.init import summary
    from pellucid.model.stats import on_meta
    from pellucid.runtime.device import choose_device
    from pellucid.train.cost import estimate_cost

    config = run_config(words or [], config_file=config_file, quick=quick)
    cost = estimate_cost(config, choose_device(device))
    model = config.model.model_copy(update={"vocab_size": cost.vocab_size})
    initial = on_meta(model).initial_weights() if initial_weights else []
    if json:
        extra = {"initial_weights": [asdict(row) for row in initial]} if initial else {}
        print_json({**cost.to_dict(), **extra})
        return 0
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in cost.rows():
        table.add_row(name, value)
    Console(highlight=False).print(table)
    for line in summary(initial):
        Console(highlight=False).print(line, markup=False, soft_wrap=True)
    return 0
