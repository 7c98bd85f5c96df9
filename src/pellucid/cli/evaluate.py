"""`pellucid evaluate`: loss, perplexity and bits per byte over a split or a text, and tasks, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pellucid.cli.options import DeviceName, DocumentMarker, Json, Target, TextField, print_json
from pellucid.runtime.console import StatusLine, message_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.checkpoint import Loaded
    from pellucid.evaluate.record import TaskEvaluation, TextEvaluation
    from pellucid.evaluate.tasks import NamedTask
    from pellucid.runtime.precision import Precision
    from pellucid.train.score import TextRequest


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    target: Target = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Text (a file, a folder, a pattern, hub:…) or a prepared directory; several as NAME=PATH; default: "
            "the run's data.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Literal["val", "train"], typer.Option("--split", help="Which side of prepared data.")
    ] = "val",
    reads: Annotated[
        Literal["documents", "stream"],
        typer.Option("--reads", help="Each document of a text anew, or all as one running text."),
    ] = "documents",
    seq_len: Annotated[
        int | None,
        typer.Option(
            "--seq-len", min=1, help="Window length; default: the model's context.", show_default=False
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            metavar="N",
            help="How far the window moves; default: its length. Smaller: more context for each token, and slower.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, help="Score only so many first tokens.", show_default=False),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            metavar="NAME=FILE,…",
            help="Tasks and their .jsonl or .parquet files: hellaswag=FILE,lambada=FILE; a folder for blimp; "
            "mine.toml=FILE for a task of your own. Without --data no text is scored then.",
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
    tokens: Annotated[
        Path | None,
        typer.Option(
            "--tokens", metavar="FILE", help="Write every token's loss, as JSON.", show_default=False
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="FILE",
            help="Write the text coloured by its tokens' losses, as HTML.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="RUN_OR_CHECKPOINT",
            help="Another model for --tokens and --page, with the same tokenizer.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where the record is kept; default: RUN/evaluations.",
            show_default=False,
        ),
    ] = None,
    device: DeviceName = None,
    dtype: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option("--dtype", help="fp32 is the most exact.")
    ] = "fp32",
    json: Json = False,
) -> int:
    """Measure a model: mean loss in nats a token, perplexity, bits per byte, tasks, with 95 % intervals."""
    from pellucid import checkpoint
    from pellucid.errors import ConfigError
    from pellucid.evaluate.tasks import parse_tasks
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.precision import choose_precision
    from pellucid.train.evaluation import describe, keep_record, record_name, task_record_name
    from pellucid.train.score import TextRequest
    from pellucid.train.scored_text import TextFormat

    console = message_console()
    if against is not None and tokens is None and page is None:
        raise ConfigError(
            "--against shows two models token by token: say where with --page FILE.html or --tokens FILE.json"
        )
    if limit is not None and not tasks:
        raise ConfigError("--limit: is for --tasks, and there are none; --max-tokens limits a text")
    named = parse_tasks(tasks or ())
    form = TextFormat(text_field, document_marker)
    request = TextRequest(tuple(data or ()), split, reads, seq_len, stride, max_tokens, form)
    wants_text = bool(data or tokens or page or not named)
    if not wants_text and request != TextRequest():
        raise ConfigError(
            "--tasks: no text is scored beside them, so that its settings do nothing; name a text with --data, or "
            "leave them out"
        )
    path, why = checkpoint.find_checkpoint(target)
    console.print(why, style="dim")
    precision = choose_precision(dtype, choose_device(device))
    loaded = checkpoint.load(path, device=precision.device.torch, is_verified=True)
    text = _text(loaded, request, precision, console, tokens, page, against) if wants_text else None
    done = _tasks(loaded, named, limit, precision, console) if named else ()
    evaluation = describe(
        loaded, precision, texts=() if text is None else (text,), tasks=done, model=str(target or path)
    )
    names = [] if text is None else [record_name(request)]
    names += [task_record_name([task.name for task in named], limit)] if named else []
    kept = keep_record(evaluation, path, "-".join(names), out, is_named=path == target)
    console.print(kept, style="dim")
    if json:
        about = {"checkpoint": str(path), "is_averaged": loaded.is_averaged, "precision": precision.name}
        of_text = {} if text is None else text.summary()
        of_tasks = {"tasks": [task.summary() for task in done]} if named else {}
        print_json({**about, **of_text, **of_tasks})
    else:
        _print(text, done, precision.name)
    return 0


def _print(text: TextEvaluation | None, tasks: Sequence[TaskEvaluation], precision: str) -> None:
    from pellucid.report.scores import print_text
    from pellucid.report.task_scores import print_tasks

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if text is not None:
        print_text(text, precision, console)
    if tasks:
        print_tasks(tasks, console)


def _tasks(
    loaded: Loaded, tasks: Sequence[NamedTask], limit: int | None, precision: Precision, console: Console
) -> tuple[TaskEvaluation, ...]:
    """Put all tasks to the model."""
    from pellucid.evaluate.tasks.run import evaluate_tasks

    line = StatusLine(console, after_s=2)
    try:
        return evaluate_tasks(
            loaded.model,
            loaded.tokenizer,
            tasks,
            precision,
            limit=limit,
            progress=lambda read, whole: line.show(f"tasks: read {read:,} of {whole:,} tokens"),
        )
    finally:
        line.clear()


def _text(
    loaded: Loaded,
    request: TextRequest,
    precision: Precision,
    console: Console,
    tokens: Path | None,
    page: Path | None,
    against: Path | None,
) -> TextEvaluation:
    """Score the text; where it is wanted, write its tokens too."""
    from pellucid.train.evaluation import evaluate_tokens
    from pellucid.train.score import evaluate_loaded

    line = StatusLine(console, after_s=2)
    progress = _Progress(line)
    try:
        if tokens is None and page is None:
            return evaluate_loaded(loaded, request, precision, progress=progress)
        other = _loaded(against, precision, console)
        shown = evaluate_tokens(loaded, request, precision, against=other, progress=progress)
    finally:
        line.clear()
    names = [str(loaded.path), *([] if other is None else [str(other.path)])]
    if tokens is not None:
        from pellucid.evaluate.token_record import tokens_json
        from pellucid.runtime.files import write_atomic

        write_atomic(tokens, tokens_json(names, shown.evaluation.data, shown.documents))
        console.print(f"token losses in {tokens}", style="dim")
    if page is not None:
        from pellucid.report.token_losses import write_page

        write_page(
            page, shown.documents, [shown.evaluation, *([shown.against] if shown.against else [])], names
        )
        console.print(f"page in {page}", style="dim")
    return shown.evaluation


def _loaded(target: Path | None, precision: Precision, console: Console) -> Loaded | None:
    if target is None:
        return None
    from pellucid import checkpoint

    path, why = checkpoint.find_checkpoint(target)
    console.print(f"against {why}", style="dim")
    return checkpoint.load(path, device=precision.device.torch, is_verified=True)


class _Progress:
    """Says how many tokens are scored, and how fast."""

    def __init__(self, line: StatusLine) -> None:
        import time

        self._line, self._clock = line, time.perf_counter
        self._began = self._clock()

    def __call__(self, tokens: int) -> None:
        speed = tokens / max(self._clock() - self._began, 1e-9)
        self._line.show(f"scored {tokens:,} tokens, {speed:,.0f} tokens/s")
