"""A text as a page, coloured by how hard each token is for a model, or by which of two models does better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.evaluate.record import TextEvaluation
from pellucid.evaluate.token_record import DocumentTokens
from pellucid.report.page import escaped, page
from pellucid.report.scores import number, over
from pellucid.runtime.files import write_atomic

MOST_TOKENS = 20_000
"""So many first ones are drawn; a browser hardly scrolls through more."""
STEPS = 8
"""Shades of a colour."""
HARDEST = 8.0
"""Nats from which a token has the strongest shade: p below 1 in 3,000."""
FARTHEST = 2.0
"""Nats between two models from which a token has the strongest shade."""
_STYLE = """
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: 1.05rem/1.9 Georgia, serif; }
.text span { border-radius: 3px; padding: .12em 0; }
.broken { outline: 2px solid rgb(200 30 60); outline-offset: -2px; }
.text span:hover { outline: 1px solid var(--ink); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0; font-size: .9rem; color: var(--soft); }
.key b { font-weight: normal; padding: .1em .5em; border-radius: 3px; color: var(--ink); }
table { border-collapse: collapse; margin: .8rem 0; } td, th { padding: .15rem .9rem .15rem 0; text-align: left; }
"""


def write_page(
    file: Path, documents: Sequence[DocumentTokens], scores: Sequence[TextEvaluation], names: Sequence[str]
) -> None:
    """Write `token_page`. Raises StorageError when it cannot be written."""
    write_atomic(file, token_page(documents, scores, names))


def token_page(
    documents: Sequence[DocumentTokens], scores: Sequence[TextEvaluation], names: Sequence[str]
) -> str:
    """The page. scores and names: of the model, and of the other one where the documents have two losses."""
    is_pair = len(scores) > 1
    body = [
        f"<h1>{'Two models, token by token' if is_pair else 'Which words are hard'}</h1>",
        _numbers(scores, names),
        f'<p class="remark">{escaped(over(scores[0]))}. Point at a token for its numbers.</p>',
        _key(is_pair),
    ]
    left = MOST_TOKENS
    for document in documents:
        if left == 0:
            break
        shown = min(left, len(document.texts))
        heading = " · ".join(word for word in (document.domain, document.where) if word)
        body.append(
            f'<section><h3>{escaped(heading)}</h3>\n<p class="text">{"".join(_spans(document, shown))}</p></section>'
        )
        left -= shown
    total = sum(len(document.texts) for document in documents)
    if total > MOST_TOKENS:
        body.append(f'<p class="remark">Drawn: the first {MOST_TOKENS:,} of {total:,} tokens.</p>')
    if any(_is_broken(document).any() for document in documents):
        body.append(
            '<p class="remark"><b class=broken>Tokens like this</b> have a loss that is not a number: the model '
            "computes NaN there, and is broken.</p>"
        )
    return page(f"Token losses: {scores[0].data}", "\n".join(body), style=_STYLE + _shades())


def _numbers(scores: Sequence[TextEvaluation], names: Sequence[str]) -> str:
    letters = ("A", "B") if len(scores) > 1 else ("",)
    rows = [
        f"<tr><th>{letter}</th><td>{escaped(name)}</td>"
        f"<td>{number(score.loss, score.loss_interval, 3)} nats a token</td>"
        f"<td>{number(score.bits_per_byte, score.bits_per_byte_interval, 3)} bits a byte</td></tr>"
        for letter, name, score in zip(letters, names, scores, strict=True)
    ]
    return f"<table>{''.join(rows)}</table>"


def _key(is_pair: bool) -> str:
    if is_pair:
        words = [("a8", "A is better by 2 nats or more"), ("a3", "A is a little better"), ("a0", "equal")]
        words += [("b3", "B is a little better"), ("b8", "B is better by 2 nats or more")]
    else:
        words = [("h0", "expected"), ("h2", "p = 1 in 7"), ("h4", "1 in 55"), ("h6", "1 in 400")]
        words += [("h8", "1 in 3,000, or less")]
    return f'<p class="key">{"".join(f"<b class={name}>{text}</b>" for name, text in words)}</p>'


def _spans(document: DocumentTokens, most: int) -> Iterator[str]:
    """One element a span of tokens, mostly one; a line break stays one, and is marked where it is all there is."""
    other, is_broken = document.against, _is_broken(document)
    for index in range(most):
        loss, text = float(document.losses[index]), document.texts[index]
        count = len(document.ids[index])
        together = f"{count} tokens together: " if count > 1 else ""
        text = text.replace("\r", "\N{SYMBOL FOR CARRIAGE RETURN}")
        shown = escaped(f"\N{RETURN SYMBOL}{text}" if text and not text.strip("\n") else text)
        if index < document.unscored:
            yield f"<span>{shown}</span>"
            continue
        if other is None:
            shade, told = f"h{_step(loss, HARDEST)}", f"{loss:.2f} nats, p = {math.exp(-loss):.2g}"
        else:
            theirs = float(other[index])
            gain = 0.0 if theirs == loss else theirs - loss  # both may be infinite
            shade = f"{'a' if gain >= 0 else 'b'}{_step(abs(gain), FARTHEST)}"
            told = f"A {loss:.2f}, B {theirs:.2f} nats"
        shade = "broken" if is_broken[index] else shade
        yield f'<span class={shade} title="{together}{told}">{shown}</span>'


def _is_broken(document: DocumentTokens) -> NDArray[np.bool_]:
    """Of each span: whether a model has no number for it that should."""
    found = np.isnan(document.losses)
    if document.against is not None:
        found |= np.isnan(document.against)
    found[: document.unscored] = False
    return found


def _step(value: float, most: float) -> int:
    """0 to `STEPS`."""
    return round(STEPS * min(value / most, 1)) if value > 0 else 0


def _shades() -> str:
    """Colours over the page's own, so that they serve light and dark: orange for hard; blue for A, orange for B."""
    colours = {"h": "224 122 31", "a": "31 128 224", "b": "224 122 31"}
    return "\n".join(
        f".{name}{step} {{ background: rgb({colour} / {0.62 * step / STEPS:.2f}); }}"
        for name, colour in colours.items()
        for step in range(1, STEPS + 1)
    )
