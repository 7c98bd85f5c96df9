"""`pellucid bench`: this project's speed on this machine; `benchmarks/` sets others beside it."""

from __future__ import annotations

import typer

from pellucid.cli.bench import generation, training


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Measure this project's speed here; benchmarks/ sets others beside it.", no_args_is_help=True
    )
    training.register(group)
    generation.register(group)
    app.add_typer(group, name="bench")
