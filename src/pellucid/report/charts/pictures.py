"""Charts as files: SVG by our own hand, PNG of the same values by matplotlib (extra: plots)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.report.charts import palette
from pellucid.report.charts.curves import scales
from pellucid.report.charts.svg import standalone
from pellucid.report.charts.values import Chart, Forest, Picture, Series
from pellucid.runtime.extras import require
from pellucid.runtime.files import file_written_aside, storage_errors, write_atomic

_STYLES = ("-", (0, (7, 4)), (0, (2, 3)))


def write_pictures(pictures: Sequence[Picture], directory: Path) -> list[Path]:
    """NAME.svg and NAME.png of each picture that shows something.

    Raises MissingLibraryError, before anything is written, where matplotlib is missing; StorageError.
    """
    figure_class = require("matplotlib.figure", extra="plots", purpose="a picture as PNG").Figure
    written: list[Path] = []
    for picture in pictures:
        if not picture.is_empty:
            written += [write_svg(picture, directory), _write_png(picture, directory, figure_class)]
    return written


def write_svg(picture: Picture, directory: Path) -> Path:
    path = directory / f"{picture.name}.svg"
    write_atomic(path, standalone(picture))
    return path


def _write_png(picture: Picture, directory: Path, figure_class: Any) -> Path:
    path = directory / f"{picture.name}.png"
    rows = 0 if isinstance(picture, Chart) else len(picture.rows)
    figure: Any = figure_class(figsize=(8, max(1.6, 0.3 * rows + 1) if rows else 4.5), layout="constrained")
    axes: Any = figure.subplots()
    if isinstance(picture, Chart):
        _curves(picture, axes)
    else:
        _rows(picture, axes)
    axes.set_title(picture.title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_written_aside(path) as file:
            figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return path


def _curves(chart: Chart, axes: Any) -> None:
    x, y = scales(chart)
    for series in chart.series:
        _curve(series, axes)
    for mark in chart.marks:
        axes.axvline(mark.x, color=palette.CURVES[1][0], linestyle=":", linewidth=1)
    axes.set(
        xlabel=chart.x.title, ylabel=chart.y.title,
        xscale="log" if x.is_log else "linear", yscale="log" if y.is_log else "linear",
        xlim=(x.low, x.high), ylim=(y.low, y.high),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    if len({series.name for series in chart.series}) > 1:
        axes.legend(frameon=False, fontsize="small")


def _curve(series: Series, axes: Any) -> None:
    colour = palette.CURVES[series.colour % len(palette.CURVES)][0]
    style = _STYLES[min(series.colour // len(palette.CURVES), len(_STYLES) - 1)]
    is_faint = series.kind == "faint"
    axes.plot(
        series.x, series.y, color=colour, linestyle=style, alpha=0.3 if is_faint else 1.0,
        linewidth=0.7 if is_faint else 1.5, marker="o" if series.kind == "points" else None, markersize=3,
        label="_nolegend_" if is_faint else series.name.lstrip("_"), zorder=1 if is_faint else 2,
    )  # fmt: skip
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)


def _rows(forest: Forest, axes: Any) -> None:
    for place, row in enumerate(forest.rows):
        colour = palette.CURVES[row.colour % len(palette.CURVES)][0]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
        axes.plot([row.value], [place], "o", color=colour)
    if forest.reference is not None:
        axes.axvline(forest.reference, color="0.4", linewidth=1)
    axes.set_yticks(range(len(forest.rows)), [row.label for row in forest.rows])
    axes.set_ylim(len(forest.rows) - 0.5, -0.5)
    axes.set_xlabel(forest.axis.title)
    axes.grid(axis="x", alpha=0.3)
