"""Charts as files: an SVG and a PNG of each, whole; and a clear word where matplotlib is missing."""

import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from pellucid.errors import MissingLibraryError
from pellucid.report.charts import Axis, Chart, Forest, Mark, Row, Series, pictures
from pellucid.report.charts.pictures import write_pictures, write_svg

CHART = Chart(
    "loss", "Loss", Axis("steps"), Axis("loss", is_log=True),
    [Series("_a", np.arange(3.0), np.array([3.0, 2.0, 1.0]), low=np.ones(3), high=np.full(3, 4.0)),
     Series("b", np.arange(3.0), np.array([3.0, np.nan, 2.0]), 9, "points")],
    marks=[Mark(1.0, "spike")],
)  # fmt: skip
FOREST = Forest("effects", "Effects", Axis("bits"), [Row("a", 1.0, 0.5, 1.5), Row("b", 2.0)], reference=0.0)
EMPTY = Chart("none", "None", Axis("x"), Axis("y"), [])


def test_every_picture_that_shows_something_is_written_twice(tmp_path):
    pytest.importorskip("matplotlib")
    written = write_pictures([CHART, FOREST, EMPTY], tmp_path / "new")
    assert [path.name for path in written] == ["loss.svg", "loss.png", "effects.svg", "effects.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
            assert width == 1200
            assert height >= 240
        else:
            assert ET.fromstring(content).tag.endswith("svg")


def test_the_same_picture_is_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (write_pictures([CHART], tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_without_matplotlib_nothing_is_written_and_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibraryError, match=r"pellucid\[plots\]"):
        write_pictures([CHART], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert write_svg(CHART, tmp_path).exists()


def test_a_png_ends_where_its_axes_end(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    chart = replace(CHART, x=Axis("steps", low=0.0, high=8.0), y=Axis("loss", low=1.0, high=5.0))
    axes = figure.subplots()
    pictures._curves(chart, axes)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 8.0), (1.0, 5.0))
    axes = figure.subplots()
    pictures._curves(replace(CHART, x=Axis("steps", low=1.0, high=100.0, is_log=True)), axes)
    assert (axes.get_xscale(), axes.get_xlim()) == ("log", (1.0, 100.0))
