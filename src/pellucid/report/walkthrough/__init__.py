"""The demo: one sentence through one model, component by component, every number read from the pass that ran.

    walkthrough = walk(model, tokenizer, "To be, or not to be", origin=Origin.random("my model", seed=0))
    print_walkthrough(walkthrough, rich.console.Console())
    Path("walk.html").write_text(to_html(walkthrough), encoding="utf-8")

Read in this order: values → subject → walk → one section a file → terminal, page.
"""

from pellucid.report.walkthrough.page import to_html
from pellucid.report.walkthrough.subject import Origin
from pellucid.report.walkthrough.terminal import print_walkthrough
from pellucid.report.walkthrough.values import Section, Walkthrough
from pellucid.report.walkthrough.walk import LONGEST, SENTENCE, walk

__all__ = [
    "LONGEST",
    "SENTENCE",
    "Origin",
    "Section",
    "Walkthrough",
    "print_walkthrough",
    "to_html",
    "walk",
]
