"""`pellucid compare`: which model is better, by how much, and whether that may be chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, Json, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from pellucid.evaluate.record import Evaluation


PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL MODEL…",
            help="Runs, checkpoints, or files that `pellucid evaluate` has kept; each beside the first.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="What to score, as for `evaluate`; default: each run's own validation text.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", metavar="NAME=FILE,…", help="Tasks, as for `evaluate`.", show_default=False),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Compare also what does not compare fairly; the reasons are shown."),
    ] = False,
    device: DeviceName = None,
    dtype: Annotated[PrecisionName, typer.Option("--dtype", help="fp32 is the most exact.")] = "fp32",
    json: Json = False,
) -> int:
    """Score models on the same text and tasks, and say which is better, by how much, with intervals.

    \b
    pellucid compare runs/quick-001 runs/quick-002
    pellucid compare runs/a runs/b runs/c --data held-out.txt --tasks hellaswag=val.jsonl
    pellucid compare a.json b.json

    Models with different tokenizers compare in bits per byte. Text that a model was trained on, or that is not the
    same for all, is refused.
    """
    from pellucid.evaluate.compare import compare as compare_evaluations
    from pellucid.evaluate.record import Evaluation
    from pellucid.report.compared import print_comparison

    console = message_console()
    if len(models) < 2:
        raise ConfigError("name at least two models, e.g. pellucid compare runs/a runs/b")
    kept = [model for model in models if model.suffix == ".json"]
    if kept and (data or tasks):
        raise ConfigError(
            f"{kept[0]}: says what was measured then; --data and --tasks want the checkpoint itself"
        )
    evaluations = [
        Evaluation.read(model) if model in kept else _measured(model, data, tasks, device, dtype, console)
        for model in models
    ]
    found = compare_evaluations(evaluations, force=force)
    if json:
        print_json({**found.to_dict(), "evaluations": [each.summary() for each in evaluations]})
    else:
        print_comparison(evaluations, found, Console(highlight=False, markup=False, soft_wrap=True))
    for caution in found.cautions:
        console.print(f"note: {caution}", style="yellow")
    return 0


def _measured(
    model: Path,
    data: list[str] | None,
    tasks: list[str] | None,
    device: str | None,
    dtype: PrecisionName,
    console: Console,
) -> Evaluation:
    """A run's best checkpoint, or a checkpoint, measured now."""
    from pellucid import checkpoint
    from pellucid.evaluate.tasks import parse_tasks
    from pellucid.evaluate.tasks.run import evaluate_tasks
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.precision import choose_precision
    from pellucid.train.evaluation import describe
    from pellucid.train.score import TextRequest, evaluate_loaded

    named = parse_tasks(tasks or ())
    path, why = checkpoint.find_checkpoint(model)
    console.print(why, style="dim")
    precision = choose_precision(dtype, choose_device(device))
    loaded = checkpoint.load(path, device=precision.device.torch, is_verified=True)
    line = StatusLine(console, after_s=2)
    texts = ()
    if data or not named:
        request = TextRequest(tuple(data or ()))
        texts = (
            evaluate_loaded(loaded, request, precision, progress=lambda done: line.show(f"{done:,} tokens")),
        )
    done = evaluate_tasks(
        loaded.model,
        loaded.tokenizer,
        named,
        precision,
        progress=lambda read, total: line.show(f"{read:,} of {total:,} tokens of tasks"),
    )
    line.clear()
    return describe(loaded, precision, texts=texts, tasks=done, model=str(model))
