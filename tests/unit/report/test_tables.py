"""Tables as HTML and as Markdown: the same words, escaped for either."""

import pytest

from pellucid.report.tables import Cell, Table, markdown_escaped, to_html, to_markdown

TABLE = Table(
    "Scores",
    ("model", "bits/byte"),
    ((Cell("a|b", "baseline"), Cell("1.25", "1.20 … 1.30", is_number=True, is_best=True)),
     (Cell("<c>", colour=9), Cell("1.50", is_number=True))),
    note="less is better",
)  # fmt: skip


def test_html_has_headers_for_rows_and_columns(read_page):
    page = read_page(to_html(TABLE))
    assert page.inside["th"] == ["model", "bits/byte", "a|bbaseline", "<c>"]
    assert page.inside["td"] == ["1.251.20 … 1.30", "1.50"]
    assert page.inside["caption"] == ["Scores"]
    scopes = [attributes["scope"] for tag, attributes in page.tags if tag == "th"]
    assert scopes == ["col", "col", "row", "row"]
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert classes == ["number best", "number"]
    assert "var(--curve-1)" in to_html(TABLE)


def test_markdown_keeps_every_row_on_its_line():
    assert to_markdown(TABLE) == (
        "**Scores**\n\n| model | bits/byte |\n| --- | ---: |\n| a\\|b (baseline) | **1.25 (1.20 … 1.30)** |\n"
        "| \\<c\\> | 1.50 |\n\nless is better\n"
    )


@pytest.mark.parametrize(
    ("text", "escaped"), [("a\nb|c", "a b\\|c"), ("_x_ *y* `z`", "\\_x\\_ \\*y\\* \\`z\\`")]
)
def test_markdown_says_what_was_said(text, escaped):
    assert markdown_escaped(text) == escaped
