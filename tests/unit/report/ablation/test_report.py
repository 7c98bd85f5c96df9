"""The report of an ablation: its numbers are those of the analysis; many cells stay readable; nothing is loaded."""

import re
import xml.etree.ElementTree as ET

import pytest
from tests.unit.report.ablations import NORM, make, one_key, plan

from pellucid.errors import DataError
from pellucid.report.ablation import analyse, write_report
from pellucid.report.ablation.curves import curve_charts, forests
from pellucid.report.ablation.finding import findings
from pellucid.report.ablation.page import to_html
from pellucid.report.ablation.record import AblationRecord, Cell

FF, POSITION = "model.feed_forward.kind", "model.position.kind"


@pytest.fixture
def wide(tmp_path):
    """18 cells, of which feed-forward matters most."""
    levels = {FF: ("swiglu", "gelu", "relu2"), POSITION: ("rope", "alibi", "none")}
    record = plan({NORM: ("rmsnorm", "layernorm"), **levels}, seeds=2)
    worth = {"swiglu": 0.0, "gelu": 1.0, "relu2": 0.5}
    return make(tmp_path, record, lambda v, s: 10 + worth[v[FF]] + 0.1 * s + 0.01 * len(v[POSITION]) * s)


def rows(page):
    return page.inside["tr"]


def test_files_stand_in_the_directory(tmp_path):
    one_key(tmp_path)
    written = write_report(tmp_path)
    assert [path.name for path in written] == [
        "report.html", "report.md", "against-baseline.svg", "training-loss-steps.svg", "validation-steps.svg",
    ]  # fmt: skip
    assert all(path.parent == tmp_path and path.stat().st_size for path in written)


def test_the_page_has_the_numbers_of_the_analysis(tmp_path, read_page):
    found = one_key(tmp_path)
    page = read_page(to_html(found))
    assert page.inside["li"][: len(findings(found))] == findings(found)
    for result in found.results:
        interval = result.over_seeds
        (row,) = [r for r in rows(page) if r.startswith(result.cell.name) and "3 of 3" in r]
        assert f"{result.mean:.4f}{interval.low:.4f} … {interval.high:.4f}" in row
    d = found.results[1].difference
    assert any(
        f"{d.mean:+.4f}{d.over_seeds.low:+.4f} … {d.over_seeds.high:+.4f}" in row for row in rows(page)
    )
    assert any(f"{d.over_text.low:+.4f} … {d.over_text.high:+.4f}" in row for row in rows(page))
    for run in found.runs:
        assert any(f"{run.bits_per_byte:.4f}" in r for r in rows(page) if r.startswith(run.cell.name))


def test_budgets_speed_and_memory_are_shown(tmp_path, read_page):
    page = read_page(to_html(one_key(tmp_path)))
    assert "rmsnorm1,2341006,4003.84e+0650.00 s1285 MB" in rows(page)
    assert any("Made equal: the number of steps" in text for text in page.texts)


def test_samples_of_each_cell(tmp_path, read_page):
    page = read_page(to_html(one_key(tmp_path)))
    assert [text for text in page.inside["p"] if text.startswith("written by")] == [
        "written by rmsnorm-s0", "written by layernorm-s0",
    ]  # fmt: skip


def test_the_page_needs_nothing_else(wide, read_page):
    text = to_html(wide)
    page = read_page(text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    assert len(text) < 1_200_000


def test_many_cells_are_drawn_apart_and_coloured_by_what_matters(wide):
    charts = curve_charts(wide)["steps"]
    training = [chart for chart in charts if chart.name.startswith("training")]
    assert len(training) == 6
    assert training[0].title == "Training loss: norm rmsnorm, position rope"
    for chart in training:
        assert [(s.name, s.colour) for s in chart.series] == [("swiglu", 0), ("gelu", 1), ("relu2", 2)]
    assert len({(chart.y.low, chart.y.high, chart.x.high) for chart in training}) == 1
    assert len({chart.name for chart in charts}) == len(charts)


def test_few_cells_are_drawn_together_with_a_band_over_seeds(tmp_path):
    training, validation = curve_charts(one_key(tmp_path))["steps"]
    assert [s.name for s in training.series] == ["rmsnorm", "layernorm"]
    series = validation.series[0]
    assert series.x.tolist() == [25, 50, 75, 100]
    assert (series.low <= series.y).all()
    assert (series.y <= series.high).all()


def test_effects_are_drawn_with_their_intervals(wide):
    effects, cells = forests(wide)
    gelu = next(row for row in effects.rows if row.label == "feed_forward: gelu − swiglu")
    found = next(e.difference for e in wide.effects if e.level == "gelu")
    assert (gelu.value, gelu.low, gelu.high) == (found.mean, found.over_seeds.low, found.over_seeds.high)
    assert gelu.colour == 1  # worse
    assert len(cells.rows) == 17


def test_markdown_says_the_same(tmp_path):
    found = one_key(tmp_path)
    _, markdown, *pictures = write_report(tmp_path)
    text = markdown.read_text()
    for sentence in findings(found):
        assert f"- {' '.join(sentence.split())}" in text
    assert f"| {found.results[1].mean:.4f} (" in text
    for picture in pictures:
        assert f"]({picture.name})" in text
        assert ET.parse(picture).getroot().tag.endswith("svg")
    assert "pellucid ablate quick --vary model.norm.kind=rmsnorm,layernorm --seeds 3 --match steps" in text


def test_a_report_of_what_has_come_so_far(tmp_path, read_page):
    record = plan({NORM: ("rmsnorm", "layernorm")})
    record.write(tmp_path)
    page = read_page(write_report(tmp_path)[0].read_text())
    assert "No run is finished yet, so nothing can be said." in page.inside["li"]
    assert any(row.startswith("not begun6") for row in rows(page))


def test_words_from_outside_stay_words(tmp_path, read_page):
    levels = ("<script>x</script>", "b")
    cells = tuple(
        Cell(name=f"c{n}", values={"data.path": level}, overrides=(f"data.path={level}",), parameters=1)
        for n, level in enumerate(levels)
    )
    record = AblationRecord(
        preset="<i>",
        overrides=("<u>=1",),
        vary={"data.path": levels},
        seeds=(0, 1),
        match="steps",
        cells=cells,
    )
    make(tmp_path, record, lambda v, s: 10.0 + s)
    failed = record.run_directory(tmp_path, record.cells[1], 0) / "failed.txt"
    failed.write_text("<u>it broke\x00")
    page = read_page(write_report(tmp_path)[0].read_text())
    assert not {"script", "i", "u"} & {tag for tag, _ in page.tags}
    assert "Ablation of <i>: path" in page.inside["h1"]
    assert any("<u>it broke" in row for row in rows(page))


def test_a_folder_without_an_ablation_is_refused(tmp_path):
    with pytest.raises(DataError, match="not an ablation"):
        analyse(tmp_path)
