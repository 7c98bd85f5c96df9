"""`pellucid bench train`: how fast this project trains on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from pellucid.runtime.console import message_console

if TYPE_CHECKING:
    from pellucid.experiments.bench.training import TrainingSpeed

DEFAULT = ("tinystories-22m", "train.batch_tokens=2048")


def register(group: typer.Typer) -> None:
    group.command("train", epilog=PRESETS_HELP)(train)


def train(
    words: Words = None,
    config_file: ConfigFile = None,
    quick: Quick = False,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Measured steps of each row.")] = 8,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="ROW",
            help="training, forward only, or activation checkpointing: measured in this process.",
            show_default=False,
        ),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Tokens a second, peak memory and utilisation of a preset's training on random ids; no data is read.

    \b
    pellucid bench train
    pellucid bench train sota-125m train.seq_len=512 train.batch_tokens=1024

    Without words and --config: tinystories-22m with 2,048 tokens a step. Each row is measured in a process of its
    own.
    """
    words = words or ([] if config_file else list(DEFAULT))
    config = run_config(words, config_file=config_file, quick=quick)  # its mistakes need not wait for torch

    from pellucid.experiments.bench.apart import measure_apart
    from pellucid.experiments.bench.training import ROWS, find_row, measure
    from pellucid.runtime.device import choose_device

    here = choose_device(device)
    if only is not None:
        rows = [measure(config, here, find_row(only), steps=steps)]
    else:
        arguments, rows = _arguments(words, config_file, device, quick=quick), list["TrainingSpeed"]()
        console = message_console()
        for row in ROWS:
            console.print(
                f"measuring {row.name}: pellucid bench train {shlex.join(arguments)} …", style="dim"
            )
            rows.append(measure_apart(arguments, row.name, steps=steps))
    if json:
        print_json({"rows": [row.to_dict() for row in rows]})
    else:
        _draw(rows)
    return 0


def _arguments(words: list[str], config_file: Path | None, device: str | None, *, quick: bool) -> list[str]:
    """The same choice of a run, as words for another process."""
    named = {"--config": config_file, "--device": device}
    options = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    return [*words, *options, *(["--quick"] if quick else [])]


def _draw(rows: list[TrainingSpeed]) -> None:
    console, first = Console(highlight=False), rows[0]
    for choice in first.choices:
        console.print(choice, style="dim", markup=False)
    console.print(f"{first.parameters:,} parameters, {first.threads} thread(s)")
    reached = ", ".join(
        f"{max(row.gemm_flops_per_s for row in rows if row.dtype == dtype) / 1e9:,.0f} GFLOP/s in {dtype}"
        for dtype in dict.fromkeys(row.dtype for row in rows)
    )
    console.print(f"fastest matrix product: {reached}\n")
    table = Table(box=None, pad_edge=False)
    for name in ("", "tokens/s", "ms a step", "first step", "peak MiB", "MFU"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.tokens_per_s:,.0f}",
            f"{row.min_ms:,.0f} … {row.max_ms:,.0f}",
            f"{row.first_step_s:.1f} s",
            f"{row.peak_rss_mib:,.0f}",
            f"{row.mfu:.0%}",
        )
    console.print(table)
