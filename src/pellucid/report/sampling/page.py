"""A comparison as one HTML page that needs nothing else: no network, no script; light and dark, wide and narrow."""

from __future__ import annotations

from html import escape

from pellucid.generate.comparison import Continuations, SamplingComparison
from pellucid.generate.samples import REPEATED_IDS, Sample
from pellucid.report.page import escaped, page
from pellucid.report.sampling.columns import COLUMNS, Column, sample_text, settings_text, standing_out

_COLOURS = {
    "bar": ("#d5e6ef", "#1f3c4d"),
    "again": ("#f7d8a8", "#5c4310"),
    "on-again": ("#1d2733", "#fbeed6"),
}
_STYLE = """
section > header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; margin-bottom: .8rem; }
section > header p { margin: 0; }
dl { color: var(--soft); font-size: .9rem; }
.figures { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0 2px; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: normal; vertical-align: bottom; }
tbody th { text-align: left; font-weight: normal; position: sticky; left: 0; background: var(--page); }
td { background: linear-gradient(to right, var(--bar) var(--share), transparent 0); border-left: 2px solid var(--page);
  min-width: 5.5rem; }
td b { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-family: ui-monospace, "SF Mono", Consolas, monospace; font-size: .85rem; }
dd { margin: 0; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: .8rem; }
article { background: var(--box); border-radius: .5rem; padding: .7rem .9rem; display: flex; flex-direction: column; }
article p { margin: .4rem 0 .6rem; white-space: pre-wrap; overflow-wrap: anywhere; flex: 1; }
article footer { color: var(--soft); font-size: .82rem; }
mark { background: var(--again); color: var(--on-again); border-radius: .15rem; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; }
}
"""


def to_html(comparison: SamplingComparison, *, model: str = "") -> str:
    """The page. model: what wrote the texts, such as a checkpoint's path. Whatever came from outside is escaped."""
    title = f"One prompt, {len(comparison.strategies)} ways to go on"
    sections = "\n".join(_section(one) for one in comparison.strategies)
    body = f"""<h1>{title}</h1>
<blockquote lang="" dir="auto">{escaped(comparison.prompt) or "(an empty prompt)"}</blockquote>
<p class="remark">{escape(_what(comparison, model))}</p>
<main>
{_figures(comparison)}
{sections}
</main>"""
    return page(title, body, style=_STYLE, colours=_COLOURS, width="78rem")


def _what(comparison: SamplingComparison, model: str) -> str:
    seeds = ", ".join(map(str, comparison.seeds))
    written = f"Written by {model}" if model else "Written"
    words = [
        f"{written}: up to {comparison.max_new_tokens} tokens a text (tokenizer: {comparison.tokenizer}), with "
        f"{'seeds' if len(comparison.seeds) > 1 else 'seed'} {seeds}."
    ]
    if comparison.prompt_tokens_read < comparison.prompt_tokens:
        words.append(
            f"Of the prompt's {comparison.prompt_tokens} tokens the last {comparison.prompt_tokens_read} were read."
        )
    return " ".join(words)


def _figures(comparison: SamplingComparison) -> str:
    cells = [_cells(column, column.values(comparison)) for column in COLUMNS]
    head = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in COLUMNS)
    rows = "\n".join(
        f'<tr><th scope="row"><a href="#{escape(_anchor(one))}">{escape(one.name)}</a></th>{"".join(row)}</tr>'
        for one, row in zip(comparison.strategies, zip(*cells, strict=True), strict=True)
    )
    meanings = "".join(
        f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in COLUMNS
    )
    return f"""<section aria-labelledby="figures">
<header><h2 id="figures">How varied they are</h2></header>
<div class="figures" tabindex="0" role="region" aria-labelledby="figures"><table>
<thead><tr><th scope="col"><span class="unseen">strategy</span></th>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<p class="remark">▲ highest, ▼ lowest of a column. Neither end is best in itself: a text that is too predictable repeats
itself, one that is too varied loses its thread. A text drawn from the model itself has a perplexity near e to the power
of its entropy; filters and low temperatures bring it below. In the texts,
<mark>{REPEATED_IDS} or more tokens in a row that came before</mark> are marked.</p>
<dl>{meanings}</dl>
</section>"""


def _cells(column: Column, values: list[float | None]) -> list[str]:
    """Each figure over a bar as long as its share of the column's highest."""
    lowest, highest = standing_out(column, values)
    most = max((value for value in values if value is not None), default=0.0)
    cells: list[str] = []
    for row, value in enumerate(values):
        share = 0.0 if value is None or most <= 0 else 100 * value / most
        mark = ""
        if row == highest:
            mark = '<b aria-hidden="true">▲</b><span class="unseen">highest</span> '
        elif row == lowest:
            mark = '<b aria-hidden="true">▼</b><span class="unseen">lowest</span> '
        cells.append(f'<td style="--share: {share:.1f}%">{mark}{escape(column.written(value))}</td>')
    return cells


def _section(one: Continuations) -> str:
    samples = one.samples if one.is_drawn else one.samples[:1]
    cards = "\n".join(
        _card(sample, f"seed {sample.seed}" if one.is_drawn else "every seed") for sample in samples
    )
    anchor = escape(_anchor(one))
    return f"""<section aria-labelledby="{anchor}">
<header><h2 id="{anchor}">{escape(one.name)}</h2><code>{escape(settings_text(one.settings))}</code>
<p class="remark">{escape(one.description)}</p></header>
<div class="texts">
{cards}
</div>
</section>"""


def _anchor(one: Continuations) -> str:
    return f"strategy-{one.name}"


def _card(sample: Sample, title: str) -> str:
    return (
        f'<article><h3>{escape(title)}</h3><p lang="" dir="auto">{_text(sample)}</p>'
        f"<footer>{escape(sample_text(sample))}</footer></article>"
    )


def _text(sample: Sample) -> str:
    """The text, what it says again marked."""
    parts: list[str] = []
    end = 0
    for first, last in sample.repeated:
        parts += [escaped(sample.text[end:first]), f"<mark>{escaped(sample.text[first:last])}</mark>"]
        end = last
    return "".join([*parts, escaped(sample.text[end:])])
