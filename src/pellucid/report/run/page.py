"""Runs as one HTML page that needs nothing else: no network, no script; light and dark, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.report.charts import palette
from pellucid.report.charts.svg import PLOT_STYLE, inline
from pellucid.report.charts.svg import STYLE as CHART_STYLE
from pellucid.report.page import escaped, page
from pellucid.report.run.curves import axes_of, event_words, loss_charts, side_charts
from pellucid.report.run.figures import duration, figures
from pellucid.report.run.measured import task_table, text_table
from pellucid.report.run.record import RunRecord
from pellucid.report.run.settings import differing, flat
from pellucid.report.tables import STYLE as TABLE_STYLE
from pellucid.report.tables import Cell, Table
from pellucid.report.tables import to_html as table_html

STYLE = """
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.figures div { background: var(--box); border-radius: .5rem; padding: .5rem .8rem; }
.figures dt { color: var(--soft); font-size: .82rem; }
.figures dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.small { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem; }
.state { border-left: 4px solid var(--curve-1); background: var(--box); padding: .5rem 1rem;
  margin: 1rem 0; }
pre { background: var(--box); padding: .7rem .9rem; border-radius: .4rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
.switch > input { position: absolute; opacity: 0; }
.switch > label { display: inline-block; padding: .15rem .8rem; border: 1px solid var(--line); border-radius: 1rem;
  font-size: .9rem; cursor: pointer; margin: .4rem .2rem 0 0; }
.switch > input:checked + label { background: var(--accent); border-color: var(--accent); color: var(--page); }
.switch > input:focus-visible + label { outline: 2px solid var(--ink); outline-offset: 2px; }
.switch > .shown { display: none; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: .8rem; }
article { background: var(--box); border-radius: .5rem; padding: .7rem .9rem; }
article p { margin: .4rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
@media print { .switch > .shown { display: block !important; } }
"""
_CHOSEN = "".join(
    f"#against-{key}:checked ~ .against-{key} {{ display: block; }}\n"
    for key in ("steps", "tokens", "time", "compute")
)
WHOLE_STYLE = STYLE + _CHOSEN + CHART_STYLE + PLOT_STYLE + TABLE_STYLE
"""Of every page that has charts, tables and texts."""

SHOWN_SAMPLES = 4
"""Texts of a run that are shown at once: the first, the last, and some between; the others are folded away."""

_STATES = {
    "running": "This run is under way: what follows is as far as it has come.",
    "stopped": "This run has no end: it was killed or lost its machine. What follows is as far as it came. "
    "pellucid train --resume {path} goes on with it.",
    "interrupted": "This run was interrupted. What follows is as far as it came. "
    "pellucid train --resume {path} goes on with it.",
    "failed": "This run failed. What follows is as far as it came.",
}


def to_html(runs: Sequence[RunRecord]) -> str:
    """The page of one run or of several. Whatever came from outside is escaped."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    parts = [
        f"<h1>{escaped(title)}</h1>",
        _headline(runs),
        "".join(_state(run, len(runs) > 1) for run in runs),
        _figures(runs[0]) if len(runs) == 1 else table_html(figure_table(runs)),
        "<main>",
        _curves(runs),
        _events(runs),
        _evaluations(runs),
        samples_section(runs),
        _settings(runs, "Config", [{k: v for k, v in run.config.items() if k != "run"} for run in runs]),
        _settings(runs, "Environment", [run.environment for run in runs]),
        _settings(runs, "Data passport", [run.passport for run in runs]),
        "</main>",
    ]
    return page(title, "\n".join(parts), style=WHOLE_STYLE, colours=palette.COLOURS, width="78rem")


def section(title: str, body: str, anchor: str) -> str:
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escaped(title)}</h2>\n{body}</section>'


def _headline(runs: Sequence[RunRecord]) -> str:
    if len(runs) > 1:
        return f'<p class="remark">{escaped(", ".join(str(run.path) for run in runs))}</p>'
    run = runs[0]
    told = [
        f"{run.parameters:,} parameters" if run.parameters else "",
        f"device {run.start['device']}" if run.start.get("device") else "",
        str(run.start.get("precision") or ""),
        f"data {run.config.get('data', {}).get('path', '')}",
    ]
    return f'<p class="remark">{escaped(" · ".join(part for part in told if part))}</p>'


def _state(run: RunRecord, is_named: bool) -> str:
    """What a reader must know before believing the numbers: nothing of a run that came to its end."""
    words = _STATES.get(run.state, "").replace("{path}", str(run.path))
    of = f" of {run.start['steps']:,}" if isinstance(run.start.get("steps"), int) else ""
    lines = [f"{words} ({run.step:,}{of} steps, {duration(run.seconds)})" if words else ""]
    lines += [f"Could not be read: {fault}" for fault in run.faults]
    if not run.steps:
        lines.append("It has made no step yet.")
    name = f"<strong>{escaped(run.name)}</strong>: " if is_named else ""
    told = [f"<p>{name}{escaped(line)}</p>" for line in lines if line]
    reason = f"<pre>{escaped(run.failure)}</pre>" if run.failure else ""
    return f'<div class="state" role="note">{"".join(told)}{reason}</div>' if told or reason else ""


def _figures(run: RunRecord) -> str:
    cells = "".join(
        f"<div><dt>{escaped(figure.title)}</dt><dd>{escaped(figure.texts[0])}</dd></div>"
        for figure in figures([run])
    )
    return f'<dl class="figures">{cells}</dl>' if cells else ""


def figure_table(runs: Sequence[RunRecord]) -> Table:
    """A row a run, the best of each column marked."""
    found = figures(runs)
    return Table(
        "Final numbers",
        ("run", *(figure.title for figure in found)),
        tuple(
            (
                Cell(run.name, "" if run.is_whole else run.state, colour=at),
                *(Cell(f.texts[at], is_number=True, is_best=f.best == at) for f in found),
            )
            for at, run in enumerate(runs)
        ),
        note="The best of a column is bold. Losses are those of each run's own validation text: they compare only "
        "where data and tokenizer are the same.",
    )


def _curves(runs: Sequence[RunRecord]) -> str:
    if not any(run.steps for run in runs):
        return ""
    charts = {
        key: "".join(inline(chart) for chart in found if not chart.is_empty)
        for key, found in loss_charts(runs).items()
    }
    titles = {against.key: against.title for against in axes_of(runs)}
    small = "".join(inline(chart) for chart in side_charts(runs))
    missing = (
        ""
        if "compute" in charts
        else '<p class="remark">No curve against compute: not every run says how many FLOPs a token takes, as runs of '
        "earlier versions do not.</p>"
    )
    body = switch([(key, f"against {titles[key]}", drawn) for key, drawn in charts.items()]) + missing
    return section("Curves", f'{body}<div class="small">{small}</div>', "curves")


def switch(choices: Sequence[tuple[str, str, str]]) -> str:
    """One of several bodies, chosen by radio buttons and no script. choices: (key of an axis, label, body)."""
    buttons = "".join(
        f'<input type="radio" name="against" id="against-{key}"{" checked" if at == 0 else ""}>'
        f'<label for="against-{key}">{escaped(label)}</label>'
        for at, (key, label, _) in enumerate(choices)
    )
    bodies = "".join(f'<div class="shown against-{key}">{body}</div>' for key, _, body in choices)
    return f'<div class="switch">{buttons}{bodies}</div>'


def _events(runs: Sequence[RunRecord]) -> str:
    rows = [
        (Cell(run.name), Cell(words)) for run in runs for fact in run.facts if (words := event_words(fact))
    ]
    if not rows:
        return ""
    shown = Table("", ("run", "what the guard saw"), tuple(rows[:200]))
    more = f'<p class="remark">… and {len(rows) - 200:,} more.</p>' if len(rows) > 200 else ""
    return section("Spikes, skips and rollbacks", table_html(shown) + more, "events")


def _evaluations(runs: Sequence[RunRecord]) -> str:
    tables = [table for table in (text_table(runs), task_table(runs)) if table is not None]
    if not tables:
        return ""
    notes = dict.fromkeys(
        note for run in runs for evaluation in run.evaluations.values() for note in evaluation.notes
    )
    body = "".join(map(table_html, tables)) + "".join(
        f'<p class="remark">{escaped(note)}</p>' for note in notes
    )
    words = '<p class="remark">Under a value: where the true one lies in 95 of 100 cases, by resampling the units.</p>'
    return section("Evaluations", body + words, "evaluations")


def samples_section(runs: Sequence[RunRecord]) -> str:
    """What each run wrote over time; of several, its last text."""
    told = [run for run in runs if run.samples]
    if not told:
        return ""
    if len(runs) > 1:
        cards = "".join(_card(run.samples[-1], f"{run.name}, ") for run in told)
        return section("Samples", f'<div class="texts">{cards}</div>', "samples")
    samples = told[0].samples
    chosen = sorted(
        {round(at * (len(samples) - 1) / max(1, SHOWN_SAMPLES - 1)) for at in range(SHOWN_SAMPLES)}
    )
    chosen = [at for at in chosen if at < len(samples)]
    cards = "".join(_card(samples[at]) for at in chosen)
    others = "".join(_card(sample) for at, sample in enumerate(samples) if at not in chosen)
    folded = (
        f"<details><summary>{len(samples) - len(chosen)} more texts</summary>"
        f'<div class="texts">{others}</div></details>'
        if others
        else ""
    )
    prompt = escaped(json.dumps(str(samples[-1].get("prompt", "")), ensure_ascii=False))
    return section(
        "Samples over time",
        f'<p class="remark">Written at each evaluation, from one seed and the prompt <code>{prompt}</code>.</p>'
        f'<div class="texts">{cards}</div>{folded}',
        "samples",
    )


def _card(sample: Mapping[str, Any], name: str = "") -> str:
    title, text = f"{name}step {sample.get('step')}", str(sample.get("text", ""))
    return f'<article><h3>{escaped(title)}</h3><p lang="" dir="auto">{escaped(text)}</p></article>'


def _settings(runs: Sequence[RunRecord], title: str, trees: Sequence[Mapping[str, Any]]) -> str:
    """Every key, folded; of several runs first those in which they differ."""
    if not any(trees):
        return ""
    if len(runs) == 1:
        return section(title, _folded("Every key", trees[0]), _anchor(title))
    rows = differing(trees)
    table = Table(
        "Where they differ",
        ("key", *(run.name for run in runs)),
        tuple((Cell(key), *map(Cell, values)) for key, values in rows.items()),
    )
    shown = table_html(table) if rows else "<p>The same in all runs.</p>"
    told = (
        [(run.name, tree) for run, tree in zip(runs, trees, strict=True)]
        if rows
        else [("Every key", trees[0])]
    )
    folded = "".join(_folded(name, tree) for name, tree in told)
    return section(title, shown + folded, _anchor(title))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _folded(title: str, tree: Mapping[str, Any]) -> str:
    return f"<details><summary>{escaped(title)}</summary>{_key_table(tree)}</details>" if tree else ""


def _key_table(tree: Mapping[str, Any]) -> str:
    rows = tuple((Cell(key), Cell(value)) for key, value in flat(tree).items())
    return table_html(Table("", ("key", "value"), rows))
