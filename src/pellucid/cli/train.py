"""`pellucid train`: trains a preset, resumes a run, or checks that a run would work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.prompt import Prompt

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
from pellucid.errors import ConfigError
from pellucid.runtime.console import message_console

if TYPE_CHECKING:
    from pellucid.cli.json_lines import JsonLines
    from pellucid.train import RunConfig, RunResult

MODES = {"quick": "quick", "16m": "sota-16m", "full": "sota-125m"}
"""What is offered on a terminal, by the preset that it means."""


def register(app: typer.Typer) -> None:
    app.command("train", epilog=PRESETS_HELP)(train)


def train(
    words: Words = None,
    config_file: ConfigFile = None,
    quick: Quick = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.", show_default=False)
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="RUN_OR_CHECKPOINT",
            help="Start from these weights: their model and tokenizer, the preset's recipe.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Verify data, first loss and learning; train nothing.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Short for train.seed=N.", show_default=False)
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N|auto",
            help="Short for train.micro_batch=N; auto: the largest that fits. Tokens a step stay.",
            show_default=False,
        ),
    ] = None,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Train a model.

    \b
    pellucid train quick
    pellucid train sota-16m data.path=stories.txt train.steps=500
    pellucid train --resume runs/quick-001 train.steps=2000
    """
    short = {"train.seed": seed, "train.micro_batch": batch}
    words = [*(words or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]
    console = message_console()
    if resume is not None:
        if config_file or quick or init or check or any("=" not in word for word in words):
            raise ConfigError(
                "--resume goes on with a run as it is; only KEY=VALUE overrides can be given with it"
            )
        from pellucid.train import resume as resume_run

        return _finish(resume_run(resume, words, device=device, console=console, hooks=_hooks(json)), json)
    if check and init:
        raise ConfigError("--check looks at a run's fresh model; --init does not go with it")
    if not any("=" not in word for word in words) and config_file is None:
        words, quick = ([MODES["quick"], *words], False) if quick else ([_ask_mode(), *words], False)
    config = run_config(words, config_file=config_file, quick=quick, init=init)
    if check:
        return _check(config, device, console, json)
    from pellucid.train import train as train_run

    return _finish(train_run(config, device=device, init=init, console=console, hooks=_hooks(json)), json)


def _ask_mode() -> str:
    """Quick, 16M or full, asked on a terminal; anywhere else the preset must be named."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        from pellucid.presets import RUNS

        raise ConfigError(f"name a preset, for example: pellucid train quick (presets: {', '.join(RUNS)})")
    try:
        answer = Prompt.ask(
            "Train [bold]quick[/] (a byte-level model: minutes on any laptop), [bold]16m[/] (16M parameters, 1,000 "
            "steps: tens of minutes on a laptop) or [bold]full[/] (124M parameters, 100,000 steps: for a GPU)?",
            choices=list(MODES),
            default="quick",
            console=Console(stderr=True),
        )
    except EOFError:  # Ctrl-D
        raise KeyboardInterrupt from None
    return MODES[answer]


def _hooks(json: bool) -> list[JsonLines]:
    if not json:
        return []
    from pellucid.cli.json_lines import JsonLines

    return [JsonLines()]


def _finish(result: RunResult, json: bool) -> int:
    if not result.is_main:
        return 128 + result.signal if result.signal is not None else 0
    console = message_console()
    if result.signal is not None:
        console.print(f"saved; go on with: pellucid train --resume {result.directory}", style="bold")
        return 128 + result.signal
    if result.sample and not json:
        from pellucid.generate.text import printable

        sys.stdout.write(f"\nWhat it writes now:\n{printable(result.sample)}\n\n")
        sys.stdout.flush()
    console.print(
        f"next: pellucid generate {result.directory}   (interactive; or with --prompt 'text')", style="bold"
    )
    return 0


def _check(config: RunConfig, device: str | None, console: Console, json: bool) -> int:
    from pellucid.train.check import check_run

    report = check_run(config, device=device, console=console)
    if json:
        print_json(report.to_dict())
    for finding in report.findings:
        mark, style = ("ok  ", "green") if finding.passed else ("FAIL", "red")
        console.print(f"{mark} {finding.what}: {finding.found}", style=style)
    return 0 if report.passed else 1
