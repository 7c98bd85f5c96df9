"""`pellucid doctor`: this machine, what would be used on it, and whether it computes rightly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.cli.options import DeviceName, Json, print_json

if TYPE_CHECKING:
    from pellucid.experiments.doctor import Diagnosis

Row = tuple[str, str, str]
"""What, what of it, and its style."""


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Also build kernels with the compiler: tens of seconds.")
    ] = False,
    device: DeviceName = None,
    json: Json = False,
) -> int:
    """Show the machine, its libraries, what a run would use and why; and test its arithmetic."""
    from pellucid.experiments.doctor import diagnose

    diagnosis = diagnose(device=device, full=full)
    if json:
        print_json(diagnosis.to_dict())
    else:
        _show(diagnosis, Console(highlight=False))
    return 0 if diagnosis.passed else 1


def _show(diagnosis: Diagnosis, console: Console) -> None:
    parts = {
        "machine": _machine(diagnosis),
        "libraries": _libraries(diagnosis),
        "what is used, and why": ((c.what, f"{c.chosen} ({c.reason})", "") for c in diagnosis.choices),
        "self-test": _self_test(diagnosis),
        "never run by this project": (("", line, "yellow") for line in diagnosis.never_run),
    }
    for title, rows in parts.items():
        console.print(Text(title, style="bold"))
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, value, style in rows:
            table.add_row(Text(f"  {name}"), Text(value, style=style))
        console.print(table)


def _machine(diagnosis: Diagnosis) -> Iterator[Row]:
    for field in fields(diagnosis.machine):
        value = getattr(diagnosis.machine, field.name)
        if field.name.endswith("_bytes"):
            shown = f"{value / 2**30:,.1f} GiB"
        else:
            shown = ", ".join(value) if isinstance(value, tuple) else str(value or "none found")
        yield field.name.removesuffix("_bytes").replace("_", " "), shown, ""


def _libraries(diagnosis: Diagnosis) -> Iterator[Row]:
    for library in diagnosis.libraries:
        missing = f"not installed; {library.hint}" if library.hint else "not installed"
        yield library.name, library.version or missing, "" if library.version else "yellow"


def _self_test(diagnosis: Diagnosis) -> Iterator[Row]:
    for comparison in diagnosis.self_test.comparisons:
        mark, style = ("ok  ", "green") if comparison.passed else ("FAIL", "red")
        yield mark, f"{comparison.what}: {comparison.error:.1e} (allowed {comparison.tolerance:.0e})", style
    for line in diagnosis.self_test.undetermined:
        yield "not deterministic", line, "yellow"
