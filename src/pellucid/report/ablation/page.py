"""An ablation as one HTML page and as Markdown: the finding first, then what it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pellucid.report.ablation.analysis import Analysis
from pellucid.report.ablation.curves import curve_charts, forests
from pellucid.report.ablation.finding import findings, key_names
from pellucid.report.ablation.tables import (
    MATCHED,
    budgets_table,
    effects_table,
    missing_table,
    results_table,
    seeds_table,
)
from pellucid.report.charts import Chart, palette
from pellucid.report.charts.svg import inline
from pellucid.report.charts.values import Picture
from pellucid.report.page import escaped, page
from pellucid.report.run.curves import axes_of
from pellucid.report.run.page import WHOLE_STYLE, section, switch
from pellucid.report.tables import markdown_escaped, to_markdown
from pellucid.report.tables import to_html as table_html

AT_ONCE = 6
"""Texts that are shown; those of further cells are folded away."""
_STYLE = """
.finding { background: var(--box); border-left: 4px solid var(--accent); padding: .8rem 1.2rem; margin: 1rem 0; }
.finding ul { margin: 0; padding-left: 1.1rem; }
.finding li { margin: .25rem 0; }
"""


def title_of(analysis: Analysis) -> str:
    return f"Ablation of {analysis.record.preset}: {', '.join(key_names(analysis.record.vary).values())}"


def command_of(analysis: Analysis) -> str:
    """The command that makes it again; where the preset itself varies, none stands before the values."""
    record = analysis.record
    preset = [] if "preset" in record.vary else [record.preset]
    vary = [w for k, values in record.vary.items() for w in ("--vary", f"{k}={','.join(map(str, values))}")]
    words = ["pellucid", "ablate", *preset, *record.overrides, *vary]
    budget = ["--seeds", str(len(record.seeds)), "--match", record.match]
    return shlex.join([*words, *budget, "--out", str(analysis.directory)])


def summary_of(analysis: Analysis) -> str:
    record = analysis.record
    planned = len(record.cells) * len(record.seeds)
    return (
        f"{len(record.cells)} cells × {len(record.seeds)} {'seeds' if len(record.seeds) > 1 else 'seed'}: "
        f"{len(analysis.runs)} of {planned} runs finished. Made equal: {MATCHED[record.match]}. "
        f"Baseline: {analysis.baseline.cell.name}. Less is better."
    )


def to_html(analysis: Analysis) -> str:
    """The page. Whatever came from outside is escaped."""
    sentences = "".join(f"<li>{escaped(sentence)}</li>" for sentence in findings(analysis))
    missing = missing_table(analysis)
    body = [
        f"<h1>{escaped(title_of(analysis))}</h1>",
        f'<p class="remark">{escaped(summary_of(analysis))}</p>',
        f'<div class="finding" role="note"><ul>{sentences}</ul></div>',
        "<main>",
        table_html(missing) if missing else "",
        _results(analysis) if analysis.runs else "",
        _curves(analysis) if analysis.runs else "",
        section("Budgets", table_html(budgets_table(analysis)), "budgets"),
        _samples(analysis),
        section(
            "How it was made", f"<pre>{escaped(command_of(analysis))}</pre>{_overrides(analysis)}", "made"
        ),
        "</main>",
    ]
    return page(
        title_of(analysis),
        "\n".join(body),
        style=WHOLE_STYLE + _STYLE,
        colours=palette.COLOURS,
        width="78rem",
    )


def _results(analysis: Analysis) -> str:
    drawn = "".join(inline(forest) for forest in forests(analysis))
    effects = (
        table_html(effects_table(analysis)) if len(analysis.record.vary) > 1 and analysis.effects else ""
    )
    seeds = f"<details><summary>Every run's bits/byte</summary>{table_html(seeds_table(analysis))}</details>"
    return section("Results", f"{drawn}{effects}{table_html(results_table(analysis))}{seeds}", "results")


def _curves(analysis: Analysis) -> str:
    titles = {against.key: against.title for against in axes_of([run.run for run in analysis.runs])}
    choices = [
        (key, f"against {titles[key]}", _grid(charts)) for key, charts in curve_charts(analysis).items()
    ]
    note = (
        '<p class="remark">A line is the mean over seeds, the band around it reaches from the lowest to the highest. '
        "Training losses are smoothed and shown from the first twentieth on. Validations are averaged only where all "
        "seeds were measured; seeds that share no place are drawn apart. All charts of a kind have one scale.</p>"
    )
    return section("Curves", note + switch(choices), "curves")


def _grid(charts: Sequence[Chart]) -> str:
    return f'<div class="small">{"".join(map(inline, charts))}</div>'


def _samples(analysis: Analysis) -> str:
    """The last text of each cell's first run."""
    cards = [
        f"<article><h3>{escaped(f'{result.cell.name}, seed {run.seed}')}</h3>"
        f'<p lang="" dir="auto">{escaped(str(run.run.samples[-1].get("text", "")))}</p></article>'
        for result in analysis.ranked
        for run in result.runs[:1]
        if run.run.samples
    ]
    if not cards:
        return ""
    rest = cards[AT_ONCE:]
    folded = (
        f'<details><summary>{len(rest)} more</summary><div class="texts">{"".join(rest)}</div></details>'
        if rest
        else ""
    )
    words = '<p class="remark">What the last model writes, from one prompt; the best cell first.</p>'
    return section(
        "Samples", f'{words}<div class="texts">{"".join(cards[:AT_ONCE])}</div>{folded}', "samples"
    )


def _overrides(analysis: Analysis) -> str:
    rows = "".join(
        f"<li><strong>{escaped(cell.name)}</strong>: <code>{escaped(' '.join(cell.overrides))}</code></li>"
        for cell in analysis.record.cells
    )
    created = (
        f'<p class="remark">Planned {escaped(analysis.record.created)}.</p>'
        if analysis.record.created
        else ""
    )
    return f"{created}<details><summary>What each cell changes</summary><ul>{rows}</ul></details>"


def to_markdown_page(analysis: Analysis, pictures: Sequence[tuple[Picture, Path]]) -> str:
    """The same without curves to choose from; pictures: with the files they lie in, named beside the page."""
    missing = missing_table(analysis)
    parts = [
        f"# {markdown_escaped(title_of(analysis))}\n",
        f"{markdown_escaped(summary_of(analysis))}\n",
        "\n".join(f"- {markdown_escaped(sentence)}" for sentence in findings(analysis)) + "\n",
        to_markdown(missing) if missing else "",
        to_markdown(effects_table(analysis)) if len(analysis.record.vary) > 1 and analysis.effects else "",
        to_markdown(results_table(analysis)) if analysis.runs else "",
        to_markdown(budgets_table(analysis)),
        "\n".join(f"![{markdown_escaped(picture.title)}]({path.name})" for picture, path in pictures) + "\n",
        f"```\n{command_of(analysis)}\n```\n",
    ]
    return "\n".join(part for part in parts if part.strip())
