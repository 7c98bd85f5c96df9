"""`pellucid report`: one page of a run, of several side by side, or of an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import Json, print_json
from pellucid.errors import ConfigError
from pellucid.runtime.console import message_console


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]…",
            help="Runs to be shown together, or one ablation; default: the newest run.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The page; default: report.html, of an ablation in its folder.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures", metavar="DIR", help="Write every chart as SVG and PNG too.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Write one self-contained page: curves, evaluations, samples, config, environment, data.

    pellucid report · pellucid report runs/quick-001 runs/quick-002 --out compared.html
    """
    from pellucid.report.ablation.record import ABLATION

    given = paths or []
    ablations = [path for path in given if (path / ABLATION).is_file()]
    if ablations and len(given) > 1:
        raise ConfigError(f"{ablations[0]}: is an ablation, whose page shows it alone; give it on its own")
    written, values = (
        _of_ablation(ablations[0], out, pictures) if ablations else _of_runs(given, out, pictures)
    )
    message_console().print(f"wrote {written[0]}: open it in a browser")
    if json:
        print_json({"files": [str(path) for path in written], **values})
    return 0


def _of_runs(
    given: list[Path], out: Path | None, pictures: Path | None
) -> tuple[list[Path], dict[str, object]]:
    from pellucid.report.run.find import find_runs, read_runs
    from pellucid.report.run.write import to_dict, write_report

    runs = read_runs(find_runs(given))
    return write_report(runs, out or Path("report.html"), pictures=pictures), {"runs": to_dict(runs)}


def _of_ablation(
    directory: Path, out: Path | None, pictures: Path | None
) -> tuple[list[Path], dict[str, object]]:
    from pellucid.report.ablation.analysis import analyse
    from pellucid.report.ablation.write import write_report

    found = analyse(directory)
    return write_report(directory, out=out, pictures=pictures, analysis=found), found.to_dict()
