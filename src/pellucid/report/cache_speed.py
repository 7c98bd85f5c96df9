"""The picture of what a cache saves: time over new tokens with it and without, and how many times as fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import ConfigError
from pellucid.runtime.extras import require
from pellucid.runtime.files import storage_errors

SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Curve:
    """Seconds of each new token, with and without a cache."""

    label: str
    cached_s: Sequence[float]
    recomputed_s: Sequence[float]
    crossover: int | None
    """The number of tokens from which on the cache is ahead."""


def require_drawable(path: Path) -> None:
    """Raise before anything is measured where it could not be drawn: ConfigError, or MissingLibraryError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--plot {path}: give a file that ends in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no directory {path.parent}; make it first")
    _figure_class()


def draw_cache_speed(curves: Sequence[Curve], path: Path, *, title: str) -> None:
    """Two panels over the number of new tokens: seconds in all (both axes logarithmic), and their ratio.

    Solid with the cache, dashed without; a dot where the two cross.
    """
    figure: Any = _figure_class()(figsize=(11, 4.5), layout="constrained")
    times, ratios = figure.subplots(1, 2)
    for number, curve in enumerate(curves):
        colour = f"C{number}"
        cached, recomputed = np.cumsum(curve.cached_s), np.cumsum(curve.recomputed_s)
        tokens = np.arange(1, len(cached) + 1)
        times.plot(tokens, cached, color=colour, label=f"{curve.label}, cache")
        times.plot(tokens, recomputed, color=colour, linestyle="--", label=f"{curve.label}, none")
        if curve.crossover is not None:
            times.plot([curve.crossover], [cached[curve.crossover - 1]], "o", color=colour)
        ratios.plot(tokens, recomputed / cached, color=colour, label=curve.label)
    times.set(xscale="log", yscale="log", xlabel="new tokens", ylabel="seconds")
    ratios.axhline(1.0, color="0.6", linewidth=0.8)
    ratios.set(xlabel="new tokens", ylabel="times as fast with the cache")
    for panel in (times, ratios):
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    figure.suptitle(title)
    with storage_errors(path):
        figure.savefig(path, dpi=150)


def _figure_class() -> Any:
    """The figure of matplotlib without pyplot, which keeps figures and picks a window system for the whole process."""
    return require("matplotlib.figure", extra="plots", purpose="--plot").Figure
