"""`pellucid COMMAND …`: finds the command, and turns every outcome into an exit status.

0 done · 1 failed · 2 the user's words or files are at fault · 128 + n stopped by signal n.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

import pellucid
from pellucid.cli import (
    ablate,
    bench,
    compare,
    config,
    data,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    import_,
    plan,
    prepare,
    push,
    replay,
    report,
    reproduce,
    sampling_comparison,
    tokenizer,
    train,
    verify_resume,
)
from pellucid.errors import PellucidError

SPIN_COUNT = "10000"
SIGINT, SIGPIPE = 2, 13  # Windows has no name for the second


class Stopped(Exception):  # noqa: N818 (no error: somebody wanted it)
    """A command was stopped from outside, by what on Unix is the signal of this number."""

    def __init__(self, number: int) -> None:
        self.number = number


class Commands(TyperGroup):
    """Keeps from typer what it would turn into exit statuses of its own."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped(SIGINT) from None
        except BrokenPipeError:
            raise Stopped(SIGPIPE) from None


def _leave(status: int | None) -> None:
    """A command's return value is the exit status."""
    raise typer.Exit(status or 0)


app = typer.Typer(
    name="pellucid",
    help=f"Grow small transformer language models from raw text. Version {pellucid.__version__}.",
    epilog="Config keys are given as key.path=value, e.g. train.lr=3e-4. Every command takes --json, and --debug "
    "to show where an error came from.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the boxes cost 0.06 s of the 0.3 s that --help may take
    result_callback=_leave,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    demo,
    train,
    generate,
    sampling_comparison,
    evaluate,
    compare,
    ablate,
    prepare,
    data,
    tokenizer,
    export,
    import_,
    push,
    plan,
    config,
    report,
    verify_resume,
    replay,
    reproduce,
    bench,
    doctor,
):
    module.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    shows_tracebacks = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # With a busy neighbour, libgomp's threads that spin at each barrier make small kernels many times slower.
    # It reads this when torch is imported, which has not happened yet.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where they are not UTF-8, as on Windows in a pipe
            stream.reconfigure(errors="replace")
    try:
        status = _run(words, shows_tracebacks=shows_tracebacks)
        sys.stdout.flush()
    except (Stopped, BrokenPipeError) as stop:
        number = stop.number if isinstance(stop, Stopped) else SIGPIPE
        if number == SIGINT:
            return _say("stopped", 128 + number)
        # The reader of our output, such as `head`, has left: what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + number
    return status


def _run(words: list[str], *, shows_tracebacks: bool) -> int:
    try:
        app(words, prog_name="pellucid")
    except SystemExit as end:  # typer's own way to end, usage errors included
        return end.code if isinstance(end.code, int) else 1
    except PellucidError as error:
        if shows_tracebacks:
            traceback.print_exc()
        return _say(f"error: {error}", error.exit_status)
    except (MemoryError, RuntimeError) as error:
        from pellucid.runtime.memory import is_out_of_memory

        if shows_tracebacks or not is_out_of_memory(error):
            raise
        return _say(
            "error: out of memory; use a smaller model, lower train.micro_batch, or set "
            "train.activation_checkpointing=full",
            1,
        )
    return 0


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201
    return status
