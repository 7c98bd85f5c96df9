"""The page of token losses, and scores on a terminal."""

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from pellucid.evaluate.record import TextEvaluation, UnitScores
from pellucid.evaluate.token_record import DocumentTokens
from pellucid.report import token_losses
from pellucid.report.scores import print_text
from pellucid.report.token_losses import token_page, write_page

TEXTS = ("It", " is", " <b>", "\n", "\ufffd")
LOSSES = np.array([np.nan, 0.0, 4.0, 2.0, 99.0], dtype=np.float32)


def evaluation(count: int = 30, domains: tuple[str, ...] = ()) -> TextEvaluation:
    tokens = np.arange(1, count + 1)
    units = UnitScores(2.0 * tokens + np.sqrt(tokens), tokens, 4 * tokens, domains)
    return TextEvaluation("a & b.txt", "", "", "document", 64, 16, units)


def document(**changes) -> DocumentTokens:
    values = {"where": "<line 1>", "domain": "", "ids": ((0,), (1,), (2,), (3,), (4, 5))}
    return DocumentTokens(
        **{**values, "texts": TEXTS, "starts": np.arange(5), "losses": LOSSES, "unscored": 1, **changes}
    )


class Spans(HTMLParser):
    """The tokens of a page: their class, their words and what a pointer shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[str | None]] = []
        self.tags: set[str] = set()
        self._is_open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._is_open = tag == "span"
        if self._is_open:
            named = dict(attrs)
            self.found.append([named.get("class"), "", named.get("title")])

    def handle_endtag(self, tag):
        self._is_open = False

    def handle_data(self, data):
        if self._is_open:
            self.found[-1][1] += data


def test_every_token_has_the_shade_of_its_loss() -> None:
    page = token_page([document()], [evaluation()], ["runs/<a>"])
    spans = Spans(page)
    assert spans.found == [
        [None, "It", None],
        ["h0", " is", "0.00 nats, p = 1"],
        ["h4", " <b>", "4.00 nats, p = 0.018"],
        ["h2", "\N{RETURN SYMBOL}\n", "2.00 nats, p = 0.14"],
        ["h8", "\ufffd", "2 tokens together: 99.00 nats, p = 1e-43"],
    ]
    assert "runs/&lt;a&gt;" in page
    assert "&lt;line 1&gt;" in page
    assert "a &amp; b.txt" in page
    assert "30 documents; windows of 64 tokens every 16" in page


def test_of_two_models_the_better_one_colours_a_token() -> None:
    other = np.array([np.nan, 2.5, 3.5, 2.0, 96.0], dtype=np.float32)
    page = token_page([document(against=other)], [evaluation(), evaluation()], ["x", "y"])
    assert [shade for shade, _, _ in Spans(page).found] == [None, "a8", "b2", "a0", "b8"]
    assert "A 4.00, B 3.50 nats" in page


def test_the_page_needs_nothing_else() -> None:
    page = token_page([document()], [evaluation()], ["a"])
    assert not {"script", "link", "img", "iframe"} & Spans(page).tags
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page


def test_only_the_first_tokens_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(token_losses, "MOST_TOKENS", 7)
    write_page(tmp_path / "p.html", [document(), document(), document()], [evaluation()], ["a"])
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert len(Spans(page).found) == 7
    assert "Drawn: the first 7 of 15 tokens." in page


def printed(found: TextEvaluation) -> list[str]:
    out = io.StringIO()
    print_text(found, "fp32", Console(file=out, width=200))
    return out.getvalue().splitlines()


def test_a_terminal_shows_numbers_intervals_and_parts() -> None:
    parts = tuple("xy"[i % 2] for i in range(30))
    found = evaluation(domains=parts)
    interval = found.loss_interval
    assert interval is not None
    lines = printed(found)
    assert lines[0].startswith(
        f"a & b.txt: loss {found.loss:.4f} [{interval.low:.4f}, {interval.high:.4f}] nats/token"
    )
    assert lines[1] == "[95 % interval] over 30 documents; windows of 64 tokens every 16"
    assert lines[2].split()[:2] == ["part", "documents"]
    assert [line.split()[:2] for line in lines[3:]] == [["x", "15"], ["y", "15"]]


def test_one_unit_has_no_interval_and_it_is_said() -> None:
    first, second = printed(evaluation(1))
    assert first == (
        "a & b.txt: loss 3.0000 nats/token, perplexity 20.086, 1.0820 bits/byte (1 tokens, 4 bytes, fp32)"
    )
    assert second.startswith("no interval: 1 document cannot say how far another text would be off")


def test_losses_that_are_no_numbers_are_told_from_those_that_nobody_has() -> None:
    losses = np.array([np.nan, np.inf, np.nan, 0.5, np.inf], dtype=np.float32)
    page = token_page([document(losses=losses)], [evaluation()], ["a"])
    assert [(shade, title) for shade, _, title in Spans(page).found] == [
        (None, None),
        ("h8", "inf nats, p = 0"),
        ("broken", "nan nats, p = nan"),
        ("h0", "0.50 nats, p = 0.61"),
        ("h8", "2 tokens together: inf nats, p = 0"),
    ]
    assert "is not a number: the model computes NaN there, and is broken" in page
    assert "computes NaN" not in token_page([document()], [evaluation()], ["a"])
    other = np.array([np.nan, np.inf, 1, np.nan, 1], dtype=np.float32)
    pair = token_page([document(losses=losses, against=other)], [evaluation(), evaluation()], ["a", "b"])
    assert [shade for shade, _, _ in Spans(pair).found] == [None, "a0", "broken", "broken", "b8"]


def test_a_loss_that_is_no_number_has_no_interval_and_it_is_said_why() -> None:
    units = UnitScores(np.full(30, np.nan), np.arange(1, 31), np.arange(1, 31))
    found = TextEvaluation("t", "", "", "document", 8, 8, units)
    assert printed(found)[1].startswith("no interval: the loss is nan")
