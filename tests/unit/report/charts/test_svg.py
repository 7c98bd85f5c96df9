"""Charts as SVG: well-formed, the values where they belong, nothing from outside taken as code, light and dark."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pellucid.report.charts import Axis, Chart, Forest, Mark, Row, Series
from pellucid.report.charts.palette import CURVES, dash, variable
from pellucid.report.charts.svg import inline, standalone
from pellucid.report.page import COLOURS

HOSTILE = "</title><script>alert('&')</script>\x00\ud800"


def chart(*series, **changes):
    return Chart(
        **{
            "name": "c",
            "title": "A title",
            "x": Axis("steps"),
            "y": Axis("loss"),
            "series": series,
            **changes,
        }
    )


def line(name="a", y=(3.0, 2.0, 1.0), **changes):
    return Series(**{"name": name, "x": np.arange(float(len(y))), "y": np.array(y), **changes})


def figure(picture):
    return ET.fromstring(inline(picture))


def points(path):
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.get("d")) if pair]


def test_a_line_goes_from_corner_to_corner():
    root = figure(chart(line(), y=Axis("loss", low=1.0, high=3.0)))
    (path,) = root.findall(".//path[@class='line']")
    assert points(path) == [(0, 0), (500, 500), (1000, 1000)]
    assert path.findtext("title") == "a"


def test_a_gap_is_a_gap():
    root = figure(chart(line(y=(1.0, 2.0, np.nan, 4.0, 5.0))))
    assert root.find(".//path[@class='line']").get("d").count("M") == 2


def test_points_tell_their_values():
    root = figure(chart(line(y=(1.5, 2.5), kind="points", name="validation")))
    assert [c.findtext("title") for c in root.iter("circle")] == [
        "validation: 1.500\nsteps: 0.000",
        "validation: 2.500\nsteps: 1.000",
    ]


def test_points_outside_of_the_picture_are_left_out():
    root = figure(chart(line(y=(9.0, 2.0), kind="points"), y=Axis("loss", high=3.0)))
    assert len(list(root.iter("circle"))) == 1


def test_pointing_at_a_place_shows_the_nearest_value_of_each_curve():
    root = figure(chart(line("a"), line("b", (30.0, 20.0, 10.0)), line("behind", kind="faint")))
    readings = [rect.findtext("title").split("\n") for rect in root.findall(".//rect[@class='reader']")]
    assert readings[0][1:] == ["a: 3.000", "b: 30.00"]
    assert readings[-1][1:] == ["a: 1.000", "b: 10.00"]


def test_a_band_surrounds_its_line():
    low, high = np.array([2.0, 1.0, 0.0]), np.array([4.0, 3.0, 2.0])
    root = figure(chart(line(low=low, high=high), y=Axis("loss", low=0.0, high=4.0)))
    band = root.find(".//path[@class='band']")
    assert re.findall(r"[\d.]+ [\d.]+", band.get("d")) == [
        "0.0 0", "500.0 250", "1000.0 500", "1000.0 1000", "500.0 750", "0.0 500",
    ]  # fmt: skip


def test_events_are_marked_and_named():
    root = figure(chart(line(), marks=[Mark(1.0, "rolled back"), Mark(99.0, "elsewhere")]))
    (mark,) = root.findall(".//line[@class='mark']")
    assert mark.get("x1") == "50%"
    assert [c.findtext("title") for c in root.iter("circle")] == ["rolled back"]


def test_the_legend_names_what_the_title_does_not():
    assert "<ul" not in inline(chart(line()))
    names = [
        li.tail or "".join(li.itertext()) for li in figure(chart(line("a"), line("b", colour=1))).iter("li")
    ]
    assert [name.strip() for name in names] == ["a", "b"]


def test_who_does_not_see_it_is_told():
    svg = figure(chart(line("training"))).find("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "A title: loss against steps. training: from 3.000 to 1.000"


@pytest.mark.parametrize("draw", [inline, standalone])
def test_words_from_outside_stay_words(draw):
    pictures = [
        chart(line(HOSTILE), line("b", kind="points"), title=HOSTILE, note=HOSTILE, marks=[Mark(1.0, HOSTILE)],
              x=Axis(HOSTILE), y=Axis(HOSTILE)),
        Forest("f", HOSTILE, Axis(HOSTILE), [Row(HOSTILE, 1.0, 0.5, 1.5)], note=HOSTILE),
    ]  # fmt: skip
    for picture in pictures:
        text = draw(picture)
        assert "<script" not in text
        assert any("script" in words for words in ET.fromstring(text).itertext())
        text.encode()


def test_a_forest_has_its_intervals_where_they_belong():
    rows = [Row("better", -0.5, -1.0, 0.0, colour=2), Row("alone", 1.0)]
    root = figure(Forest("f", "Effects", Axis("bits"), rows, reference=0.0))
    interval = root.find(".//line[@class='interval']")
    share = lambda value: 100 * (value + 1.1) / 2.2  # noqa: E731 (-1 … 1 with a twentieth of air on either side)
    assert [interval.get("x1"), interval.get("x2")] == [f"{share(-1):.2f}%", f"{share(0):.2f}%"]
    assert [c.get("cx") for c in root.iter("circle")] == [f"{share(-0.5):.2f}%", f"{share(1):.2f}%"]
    assert root.find("svg").get("aria-label") == "Effects: better: -0.5000, -1.000 to 0.000; alone: 1.000"


def test_a_file_follows_light_and_dark_and_loads_nothing():
    text = standalone(chart(line("a"), line("b", colour=9)))
    light, dark = text.split("prefers-color-scheme: dark")
    assert f"--curve-1: {CURVES[1][0]}" in light
    assert f"--curve-1: {CURVES[1][1]}" in dark
    assert re.findall(r'https?://[^"]+', text) == ["http://www.w3.org/2000/svg"]
    assert ET.fromstring(text).get("viewBox") == f"0 0 800 {ET.fromstring(text).get('height')}"


def test_many_long_curves_stay_small():
    x = np.arange(100_000.0)
    noise = np.random.default_rng(0).standard_normal((18, len(x)))
    many = chart(*(Series(f"r{n}", x, values, n) for n, values in enumerate(noise)))
    assert len(inline(many)) < 180_000


def test_curves_of_one_colour_differ_in_their_dashes():
    assert len({(variable(n), dash(n)) for n in range(24)}) == 24


def luminance(code):
    parts = [int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("side", [0, 1])
def test_every_curve_can_be_seen_on_its_page(side):
    paper = luminance(COLOURS["page"][side])
    for pair in CURVES:
        light, dark = sorted((luminance(pair[side]), paper), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
