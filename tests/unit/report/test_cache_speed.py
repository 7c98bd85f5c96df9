"""The picture of what a cache saves."""

import sys

import pytest

from pellucid.errors import ConfigError, MissingLibraryError
from pellucid.report import cache_speed
from pellucid.report.cache_speed import Curve, draw_cache_speed, require_drawable

CURVES = [Curve("fp32, batch 1", [0.5, 0.1, 0.1], [0.4, 0.4, 0.4], 2), Curve("bf16, batch 1", [1], [1], None)]


def test_a_picture_shows_both_ways_their_ratio_and_where_they_cross(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    kept, figure_class = [], cache_speed._figure_class()

    def figure(**settings):
        kept.append(figure_class(**settings))
        return kept[-1]

    monkeypatch.setattr(cache_speed, "_figure_class", lambda: figure)
    draw_cache_speed(CURVES, tmp_path / "cache.png", title="tiny")
    assert (tmp_path / "cache.png").read_bytes().startswith(b"\x89PNG")
    times, ratios = kept[0].axes
    cached, recomputed, crossing, *other = (line.get_ydata().tolist() for line in times.lines)
    assert cached == pytest.approx([0.5, 0.6, 0.7])
    assert recomputed == pytest.approx([0.4, 0.8, 1.2])
    assert crossing == pytest.approx([0.6])
    assert len(other) == 2  # of the second, which never crosses, no dot
    assert ratios.lines[0].get_ydata().tolist() == pytest.approx([0.4 / 0.5, 0.8 / 0.6, 1.2 / 0.7])


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingLibraryError, match=r"--plot needs the library matplotlib.*pellucid\[plots\]"):
        require_drawable(tmp_path / "cache.png")


@pytest.mark.parametrize(("name", "said"), [("cache.gif", "ends in .png"), ("no/cache.png", "no directory")])
def test_a_file_that_cannot_be_drawn_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        require_drawable(tmp_path / name)
