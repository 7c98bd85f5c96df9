"""The report of an ablation: its numbers are those of the analysis; many cells stay readable; nothing is loaded."""

import json
import re
import shlex
import xml.etree.ElementTree as ET

import pytest
from tests.unit.report.ablations import NORM, make, one_key, plan
from tests.unit.report.run_directories import facts

from pellucid.errors import DataError
from pellucid.report.ablation import analyse, write_report
from pellucid.report.ablation.curves import curve_charts, forests
from pellucid.report.ablation.finding import findings
from pellucid.report.ablation.page import command_of, to_html
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
    command = "pellucid ablate quick --vary model.norm.kind=rmsnorm,layernorm --seeds 3 --match steps"
    assert f"{command} --out {tmp_path}\n" in text


def test_the_command_names_no_preset_where_it_varies(tmp_path):
    record = plan({"preset": ("quick", "debug"), NORM: ("rmsnorm", "layernorm")}, seeds=2)
    found = make(tmp_path / "my runs", record, lambda v, s: 10.0 + s)
    assert shlex.split(command_of(found)) == [
        "pellucid", "ablate", "--vary", "preset=quick,debug", "--vary", f"{NORM}=rmsnorm,layernorm",
        "--seeds", "2", "--match", "steps", "--out", str(tmp_path / "my runs"),
    ]  # fmt: skip


def test_the_table_of_effects_says_what_it_is_of(wide, read_page):
    page = read_page(to_html(wide))
    effect = next(e for e in wide.effects if e.level == "gelu")
    (row,) = [r for r in rows(page) if r.startswith(f"{FF}gelu")]
    assert row.endswith(f"{effect.reach[0]:+.4f} … {effect.reach[1]:+.4f}26 combinations each")
    assert f"{effect.difference.mean:+.4f}" in row


def validated(directory, at):
    """One cell whose seeds were evaluated at these steps, with values that tell seed and step."""
    record = plan({NORM: ("rmsnorm", "layernorm")}, seeds=len(at))
    make(directory, record, lambda v, s: 10.0 + s)
    for seed, steps in enumerate(at):
        path = record.run_directory(directory, record.cells[0], seed) / "metrics.jsonl"
        told = [fact for fact in facts() if fact["event"] != "evaluation"]
        told[-1:-1] = [
            {"event": "evaluation", "step": step, "val_loss": 1.0, "bits_per_byte": step + seed / 4,
             "tokens": 64 * step, "elapsed_seconds": step * (1 + seed / 8)} for step in steps
        ]  # fmt: skip
        path.write_text("".join(json.dumps(fact) + "\n" for fact in told))
    charts = curve_charts(analyse(directory))
    return {
        axis: next(chart for chart in found if chart.name.startswith("validation"))
        for axis, found in charts.items()
    }


def curves_of(chart, name="rmsnorm"):
    return [series for series in chart.series if series.name == name]


def test_validations_are_averaged_only_where_all_seeds_were_measured(tmp_path):
    (series,) = curves_of(validated(tmp_path, [(10, 40, 50, 90), (40, 50, 100)])["steps"])
    assert (series.x.tolist(), series.y.tolist()) == ([40, 50], [40.125, 50.125])
    assert (series.low.tolist(), series.high.tolist()) == ([40, 50], [40.25, 50.25])
    assert series.kind == "points"


def test_uneven_steps_put_no_dot_where_nobody_measured(tmp_path):
    (series,) = curves_of(validated(tmp_path, [(40, 80, 100), (40, 80, 100)])["steps"])
    assert series.x.tolist() == [40, 80, 100]


def test_seeds_that_share_no_place_are_drawn_apart(tmp_path):
    charts = validated(tmp_path, [(90,), (20, 40)])
    assert [(s.x.tolist(), s.y.tolist()) for s in curves_of(charts["steps"])] == [
        ([90], [90]), ([20, 40], [20.25, 40.25]),
    ]  # fmt: skip
    assert {(s.colour, s.low is None) for s in curves_of(charts["steps"])} == {(0, True)}
    assert "are seeds" in charts["steps"].note
    charts = validated(tmp_path / "time", [(30, 60), (30, 60)])
    assert charts["steps"].note == ""
    assert [s.x.tolist() for s in curves_of(charts["time"])] == [[30, 60], [33.75, 67.5]]


def test_what_a_rollback_made_anew_is_drawn_once_and_forwards(tmp_path):
    (series,) = curves_of(validated(tmp_path, [(20, 40, 60, 40, 80)])["steps"])
    assert series.x.tolist() == [20, 40, 60, 80]


def test_facets_of_like_names_have_files_of_their_own(tmp_path):
    record = plan({"train.lr": ("1e-3", "1e+3", "1e=3"), FF: ("swiglu", "gelu", "relu2")}, seeds=1)
    worth = {"swiglu": 0.0, "gelu": 1.0, "relu2": 0.5}
    found = make(tmp_path, record, lambda v, s: 10 + worth[v[FF]])
    names = [chart.name for chart in curve_charts(found)["steps"] if chart.name.startswith("validation")]
    assert names == [f"validation-steps-lr-1e-3{end}" for end in ("", "-2", "-3")]
    written = write_report(tmp_path)
    assert len(set(written)) == len(written)


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
