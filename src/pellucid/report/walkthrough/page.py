"""A walkthrough as one HTML page that needs nothing else: no network, no script; light and dark."""

from __future__ import annotations

from html import escape

from pellucid.report.page import page
from pellucid.report.walkthrough.drawings import bars, heatmap, turns
from pellucid.report.walkthrough.values import (
    Bars,
    Heatmap,
    Picture,
    Section,
    Strip,
    Table,
    Turns,
    Walkthrough,
)

_STYLE = """
h1 { margin-bottom: .3rem; }
section { margin-top: 1.6rem; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between; align-items: baseline; }
.strip, svg text { font-family: ui-monospace, "SF Mono", Consolas, monospace; }
code { color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
.formula { background: var(--box); padding: .4rem .8rem; border-radius: .4rem; font-style: italic; }
figcaption { color: var(--soft); font-size: .9rem; }
figure { margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; }
th { color: var(--soft); font-weight: normal; text-align: left; }
th, td { padding: .15rem .9rem .15rem 0; white-space: pre; }
.number { text-align: right; }
tbody tr:hover { background: var(--box); }
.strip { display: flex; flex-wrap: wrap; gap: .3rem; font-size: .85rem; }
.strip span { background: var(--box); border-radius: .3rem; padding: .1rem .45rem; text-align: center; }
.strip small { display: block; color: var(--soft); }
svg { display: block; max-width: none; }
svg text { fill: var(--ink); font-size: 11px; }
svg .soft { fill: var(--soft); }
svg .fill { fill: var(--accent); }
svg .line { stroke: var(--line); fill: none; }
svg .old { stroke: var(--soft); fill: none; }
svg .new { stroke: var(--accent); fill: none; }
"""


def to_html(walkthrough: Walkthrough) -> str:
    """The page. Whatever came from the user or the model is escaped."""
    sections = "\n".join(
        _section(section, number) for number, section in enumerate(walkthrough.sections, start=1)
    )
    rows = "".join(
        f"<tr><td><code>{escape(command)}</code></td><td>{escape(why)}</td></tr>"
        for command, why in walkthrough.next_steps
    )
    next_steps = (
        f"<section><h2>What to try next</h2><table><tbody>{rows}</tbody></table></section>" if rows else ""
    )
    body = f"""<h1>{escape(walkthrough.title)}</h1>
<blockquote>{escape(walkthrough.text)}</blockquote>
<p class="remark">Every number on this page was read by hooks from the one forward pass that ran.</p>
{sections}
{next_steps}"""
    return page(walkthrough.title, body, style=_STYLE)


def _section(section: Section, number: int) -> str:
    files = "".join(f"<code>{escape(file)}</code>" for file in section.files)
    formula = f'<p class="formula">{escape(section.formula)}</p>' if section.formula else ""
    pictures = "\n".join(_drawn(picture) for picture in section.pictures)
    remarks = "".join(f'<p class="remark">{escape(remark)}</p>' for remark in section.remarks)
    return (
        f"<section><header><h2>{number} · {escape(section.title)}</h2>{files}</header>\n"
        f"<p>{escape(section.words)}</p>{formula}\n{pictures}\n{remarks}</section>"
    )


def _drawn(picture: Picture) -> str:
    match picture:
        case Table():
            return f"<figure>{_table(picture)}</figure>"
        case Strip():
            body = _strip(picture)
        case Bars():
            body = bars(picture)
        case Heatmap():
            body = heatmap(picture)
        case Turns():
            body = turns(picture)
    return f"<figure><figcaption>{escape(picture.caption)}</figcaption>{body}</figure>"


def _strip(strip: Strip) -> str:
    cells = "".join(
        f"<span>{escape(label)}<small>{escape(value)}</small></span>" for label, value in strip.cells
    )
    return f'<div class="strip">{cells}</div>'


def _table(table: Table) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        kinds = ("" if index < table.num_words else ' class="number"' for index in range(len(cells)))
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    return f"<table><thead><tr>{row(table.columns, 'th')}</tr></thead><tbody>{body}</tbody></table>"
