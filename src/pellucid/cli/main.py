"""`pellucid COMMAND …`: finds the command, and turns every outcome into an exit status.

0 done · 1 failed · 2 the user's words or files are at fault · 128 + n stopped by signal n.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
import typer

import pellucid
from pellucid.cli import evaluate, generate, plan, prepare, train, verify_resume
from pellucid.errors import PellucidError, UserError

app = typer.Typer(
    name="pellucid",
    help=f"Grow small transformer language models from raw text. Version {pellucid.__version__}.",
    epilog="Config keys are given as key.path=value, e.g. train.lr=3e-4. Every command takes --json, and --debug "
    "to show where an error came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (train, generate, evaluate, prepare, plan, verify_resume):
    module.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    shows_tracebacks = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # With a busy neighbour, libgomp's threads that spin at each barrier make small kernels many times slower.
    # It reads this when torch is imported, which has not happened yet.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        status = app(words, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("stopped", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (closed with the process)
        return 141
    except PellucidError as error:
        if shows_tracebacks:
            raise
        return _say(f"error: {error}", error.exit_status)
    except MemoryError:
        if shows_tracebacks:
            raise
        return _say("error: out of memory; lower train.micro_batch, or set train.activation_checkpointing=full", 1)
    return status if isinstance(status, int) else 0


SPIN_COUNT = "1000"


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201
    return status


__all__ = ["UserError", "app", "main"]
