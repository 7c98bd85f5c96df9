"""The report of an ablation as files: report.html, report.md and its pictures."""

from __future__ import annotations

from pathlib import Path

from pellucid.report.ablation.analysis import Analysis, analyse
from pellucid.report.ablation.curves import curve_charts, forests
from pellucid.report.ablation.page import to_html, to_markdown_page
from pellucid.report.charts.pictures import write_pictures, write_svg
from pellucid.report.charts.values import Picture
from pellucid.runtime.files import write_atomic

PAGE, MARKDOWN = "report.html", "report.md"


def write_report(
    directory: Path,
    *,
    out: Path | None = None,
    pictures: Path | None = None,
    analysis: Analysis | None = None,
) -> list[Path]:
    """Write the report of the ablation in `directory`, as far as its runs have come; returns the files, the page first.

    The page goes to `out` (default: report.html in the directory), report.md and the SVG pictures that it shows stand
    beside it. pictures: a folder for all charts as SVG and PNG. analysis: where it was made already.
    Raises DataError where there is no ablation, MissingLibraryError for PNGs without matplotlib, StorageError.
    """
    found = analysis or analyse(directory)
    more = write_pictures(all_pictures(found), pictures) if pictures is not None else []
    html = out or directory / PAGE
    drawn = [(picture, write_svg(picture, html.parent)) for picture in shown_pictures(found)]
    write_atomic(html, to_html(found))
    markdown = html.with_suffix(".md")
    write_atomic(markdown, to_markdown_page(found, drawn))
    return [html, markdown, *(path for _, path in drawn), *more]


def shown_pictures(analysis: Analysis) -> list[Picture]:
    """What Markdown shows: the differences, and the curves against steps."""
    if not analysis.runs:
        return []
    return [*forests(analysis), *next(iter(curve_charts(analysis).values()))]


def all_pictures(analysis: Analysis) -> list[Picture]:
    if not analysis.runs:
        return []
    return [*forests(analysis), *(chart for charts in curve_charts(analysis).values() for chart in charts)]
