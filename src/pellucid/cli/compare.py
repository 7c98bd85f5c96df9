"""`pellucid compare`: which model is better, by how much, and whether that may be chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, DocumentMarker, Json, TextField, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.evaluate.record import Evaluation
    from pellucid.evaluate.tasks import NamedTask
    from pellucid.runtime.precision import Precision
    from pellucid.train.score import TextRequest

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
    seq_len: Annotated[
        int | None,
        typer.Option(
            "--seq-len",
            min=1,
            help="Window length for all; default: the smallest context of the models.",
            show_default=False,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            metavar="N",
            help="How far the window moves; default: its length.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="Score only so many first tokens; for models with one tokenizer.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Only so many first items of each task's file.", show_default=False
        ),
    ] = None,
    text_field: TextField = "text",
    document_marker: DocumentMarker = None,
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
    kept = {model: Evaluation.read(model) for model in models if model.suffix == ".json"}
    how = {
        "--data": data,
        "--tasks": tasks,
        "--seq-len": seq_len,
        "--stride": stride,
        "--max-tokens": max_tokens,
        "--limit": limit,
        "--document-marker": document_marker,
    }
    if kept and (given := [option for option, value in how.items() if value]):
        raise ConfigError(
            f"{next(iter(kept))}: says what was measured then; {' and '.join(given)} want the checkpoint itself"
        )
    measured = dict[Path, Evaluation]()
    if checkpoints := [model for model in models if model not in kept]:
        from pellucid.train.score import TextRequest
        from pellucid.train.scored_text import TextFormat

        request = TextRequest(
            tuple(data or ()),
            seq_len=seq_len,
            stride=stride,
            max_tokens=max_tokens,
            form=TextFormat(text_field, document_marker),
        )
        measured = _measured(checkpoints, request, tasks or (), limit, (device, dtype), console)
    evaluations = [kept[model] if model in kept else measured[model] for model in models]
    found = compare_evaluations(evaluations, force=force)
    if json:
        print_json({**found.to_dict(), "evaluations": [each.summary() for each in evaluations]})
    else:
        print_comparison(evaluations, found, Console(highlight=False, markup=False, soft_wrap=True))
    for caution in found.cautions:
        console.print(f"note: {caution}", style="yellow")
    return 0


def _measured(
    models: Sequence[Path],
    request: TextRequest,
    tasks: Sequence[str],
    limit: int | None,
    device_and_dtype: tuple[str | None, PrecisionName],
    console: Console,
) -> dict[Path, Evaluation]:
    """Every run's best checkpoint, or checkpoint, measured now, one after the other, with one window."""
    from pellucid import checkpoint
    from pellucid.evaluate.tasks import parse_tasks
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.precision import choose_precision

    named = parse_tasks(tasks)
    paths = dict[Path, Path]()
    for model in models:
        paths[model], why = checkpoint.find_checkpoint(model)
        console.print(why, style="dim")
    wants_text = bool(request.data or not named)
    if wants_text and request.seq_len is None:
        request = _with_one_window(request, paths, console)
    device, dtype = device_and_dtype
    precision = choose_precision(dtype, choose_device(device))
    return {
        model: _measure(model, path, request if wants_text else None, named, limit, precision, console)
        for model, path in paths.items()
    }


def _with_one_window(request: TextRequest, paths: dict[Path, Path], console: Console) -> TextRequest:
    """The smallest context for all, where they differ."""
    from dataclasses import replace

    from pellucid.checkpoint import load_config

    contexts = {
        model: int(load_config(path).get("model", {}).get("max_seq_len", 0)) for model, path in paths.items()
    }
    smallest = min(contexts, key=lambda model: contexts[model])
    if len(set(contexts.values())) == 1 or not contexts[smallest]:
        return request
    console.print(
        f"note: all are read in windows of {contexts[smallest]:,} tokens, the context of {smallest}; --seq-len N sets "
        "another",
        style="yellow",
    )
    return replace(request, seq_len=contexts[smallest])


def _measure(
    model: Path,
    path: Path,
    request: TextRequest | None,
    tasks: Sequence[NamedTask],
    limit: int | None,
    precision: Precision,
    console: Console,
) -> Evaluation:
    """One model, which is let go of before the next is loaded."""
    from pellucid import checkpoint
    from pellucid.evaluate.tasks.run import evaluate_tasks
    from pellucid.train.evaluation import describe
    from pellucid.train.score import evaluate_loaded

    loaded = checkpoint.load(path, device=precision.device.torch, is_verified=True)
    line = StatusLine(console, after_s=2)
    texts = ()
    try:
        if request is not None:
            texts = (
                evaluate_loaded(
                    loaded, request, precision, progress=lambda done: line.show(f"{done:,} tokens")
                ),
            )
        done = evaluate_tasks(
            loaded.model,
            loaded.tokenizer,
            tasks,
            precision,
            limit=limit,
            progress=lambda read, total: line.show(f"{read:,} of {total:,} tokens of tasks"),
        )
    finally:
        line.clear()
    return describe(loaded, precision, texts=texts, tasks=done, model=str(model))
