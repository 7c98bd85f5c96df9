"""`pellucid COMMAND …`: finds the command, and turns every outcome into an exit status.

0 done · 1 failed · 2 the user's words or files are at fault · 128 + n stopped by signal n.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

import typer

import pellucid
from pellucid.cli import config, evaluate, generate, plan, prepare, train, verify_resume
from pellucid.errors import PellucidError

SPIN_COUNT = "1000"


def _leave(status: int | None) -> None:
    """A command's return value is the exit status."""
    raise typer.Exit(status or 0)


app = typer.Typer(
    name="pellucid",
    help=f"Grow small transformer language models from raw text. Version {pellucid.__version__}.",
    epilog="Config keys are given as key.path=value, e.g. train.lr=3e-4. Every command takes --json, and --debug "
    "to show where an error came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the boxes cost 0.06 s of the 0.3 s that --help may take
    result_callback=_leave,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (train, generate, evaluate, prepare, plan, config, verify_resume):
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
        app(words, prog_name="pellucid")
    except SystemExit as end:  # typer's own way to end, usage errors included
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return _say("stopped", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (closed with the process)
        return 141
    except PellucidError as error:
        if shows_tracebacks:
            traceback.print_exc()
        return _say(f"error: {error}", error.exit_status)
    except (MemoryError, RuntimeError) as error:
        if shows_tracebacks or not _is_out_of_memory(error):
            raise
        return _say(
            "error: out of memory; use a smaller model, lower train.micro_batch, or set "
            "train.activation_checkpointing=full",
            1,
        )
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own error, torch's for a GPU, or the plain RuntimeError of torch's CPU allocator."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201
    return status
