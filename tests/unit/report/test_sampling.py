"""A comparison drawn: in 80 columns, and as one page that shows every text and asks nothing of the network."""

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from pellucid.generate.comparison import Continuations, SamplingComparison
from pellucid.generate.samples import Sample, figures
from pellucid.report.sampling import print_comparison, to_html
from pellucid.report.sampling.columns import COLUMNS, digits, sample_text, settings_text, standing_out

HOSTILE = "[b]x[/b]\n<script>alert('&')</script>\x1b[31m\x00\u202e</mark>"
COLUMN = {column.key: column for column in COLUMNS}


def sample(seed, text, *, repeated=(), **settings):
    values = {"stop_reason": "length", "repetition": 0.25, "surprise": 1.0, "entropy": 2.0, **settings}
    return Sample(seed=seed, text=text, ids=tuple(text.encode()), repeated=repeated, **values)


def continuations(name, *samples, is_drawn=True, **settings):
    return Continuations(
        name=name,
        description=f"what {name} does",
        settings=settings,
        is_drawn=is_drawn,
        samples=samples,
        figures=figures(samples),
    )


@pytest.fixture
def comparison():
    return SamplingComparison(
        prompt="Once <upon> a time",
        prompt_tokens=18,
        prompt_tokens_read=18,
        seeds=(0, 1),
        max_new_tokens=40,
        tokenizer="byte",
        continues_prompt=True,
        strategies=(
            continuations("greedy", *(sample(seed, "tictictic", repeated=((3, 9),)) for seed in (0, 1)),
                          is_drawn=False, temperature=0.0),
            continuations("top_k", sample(0, "日本 was there"), sample(1, HOSTILE, repeated=((9, 17),)),
                          temperature=1.0, top_k=50),
            continuations("nothing", *(sample(seed, "", repetition=None, surprise=None, entropy=None,
                                              stop_reason="end of text") for seed in (0, 1)), temperature=0.5),
        ),
    )  # fmt: skip


def drawn(comparison, width=80, **settings):
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width, highlight=False, markup=False, **settings))
    return file.getvalue()


# Columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.01234, "0.0123"), (1.0, "1.00"), (97.66, "97.7"), (120.0, "120"), (999.6, "1,000"), (50257.0, "50,257"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_have_three_digits(value, written):
    assert digits(value) == written


def test_every_figure_has_a_column(comparison):
    assert [column.key for column in COLUMNS] == list(vars(comparison.strategies[0].figures))


def test_the_ends_of_a_column_stand_out_where_they_are_alone():
    overlap = COLUMN["overlap"]
    assert standing_out(overlap, [0.3, 0.1, 0.9]) == (1, 2)
    assert standing_out(overlap, [0.3, 0.301, 0.9]) == (None, 2)  # equal as written
    assert standing_out(overlap, [None, 0.3, 0.2]) == (2, 1)
    assert standing_out(overlap, [0.5, 0.5]) == (None, None)
    assert standing_out(overlap, [None, None]) == (None, None)


def test_settings_and_figures_are_words():
    assert settings_text({"temperature": 0.8, "top_k": 50}) == "temperature 0.8, top_k 50"
    assert sample_text(sample(0, "abcd")) == "4 tokens · 25% repeated · perplexity 2.72"
    nothing = sample(0, "", repetition=None, surprise=None, entropy=None, stop_reason="end of text")
    assert sample_text(nothing) == "0 tokens · came to an end"


# The terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 40, 200])
def test_every_text_is_there_and_fits(comparison, width):
    lines = drawn(comparison, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert all(words in text for words in ("tictictic", "日本 was there", "[b]x[/b]", "(nothing)"))
    assert all(f"what {one.name} does" in text for one in comparison.strategies)


def test_the_table_has_a_row_a_strategy_and_the_figures(comparison):
    lines = drawn(comparison).splitlines()
    assert lines[0].split() == [column.short for column in COLUMNS]
    found = comparison.strategies[0].figures
    assert lines[1].split() == [
        "greedy", f"{found.distinct_1:.2f}", f"{found.distinct_2:.2f}", f"{found.distinct_3:.2f}",
        f"{found.repetition:.0%}", "1.00", "2.72", "2.00", "0%", "9.00",
    ]  # fmt: skip
    assert lines[3].split() == ["nothing", *["–"] * 7, "100%", "0.00"]


def test_the_longest_name_and_largest_figures_fit_80_columns(comparison):
    one = comparison.strategies[1]
    largest = replace(one.figures, perplexity=50257.0, entropy=10.82, tokens=1024.0, ended=1.0)
    wide = replace(comparison, strategies=(replace(one, name="repetition_penalty", figures=largest),))
    rows = [line for line in drawn(wide).splitlines() if "50,257" in line]
    assert len(rows) == 1
    assert "…" not in drawn(wide).splitlines()[0]


def test_texts_stand_side_by_side_where_there_is_room(comparison):
    assert any("seed 0" in line and "seed 1" in line for line in drawn(comparison, 80).splitlines())
    assert not any("seed 0" in line and "seed 1" in line for line in drawn(comparison, 60).splitlines())
    assert drawn(comparison).count("every seed") == 1


def test_control_characters_do_not_reach_the_terminal(comparison):
    assert not {"\x1b", "\x00", "\u202e"} & set(drawn(comparison))


def test_what_is_repeated_is_coloured_on_a_terminal(comparison):
    text = drawn(comparison, force_terminal=True, color_system="truecolor")
    assert "4 tokens in a row that came before" in text
    assert "4 tokens in a row that came before\n" not in drawn(comparison)
    assert re.search(r"tic\x1b\[[\d;]*48;2;247;216;168m" + "tictic\x1b", text)


# The page -------------------------------------------------------------------------------------------


def test_the_page_shows_every_text_as_it_is(comparison, read_page):
    page = read_page(to_html(comparison, model="runs/<mine>"))
    texts = page.inside["article"]
    assert len(texts) == 1 + 2 + 2
    assert "every seedtictictic9 tokens" in texts[0]
    assert "日本 was there" in texts[1]
    assert "[b]x[/b]\n<script>alert('&')</script>\ufffd[31m\ufffd\u202e</mark>" in texts[2]
    assert page.inside["blockquote"] == ["Once <upon> a time"]
    assert "runs/<mine>" in "".join(page.texts)
    assert page.inside["h2"][1:] == ["greedy", "top_k", "nothing"]
    assert page.inside["code"] == ["temperature 0", "temperature 1, top_k 50", "temperature 0.5"]


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(comparison, read_page):
    html = to_html(comparison)
    page = read_page(html)
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    names = {name for _, attributes in page.tags for name in attributes}
    assert "src" not in names
    assert not any(name.startswith("on") for name in names)
    assert "prefers-color-scheme: dark" in html


def test_links_lead_to_the_strategies(comparison, read_page):
    page = read_page(to_html(comparison))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["#strategy-greedy", "#strategy-top_k", "#strategy-nothing"]
    assert {link[1:] for link in links} < set(ids)
    labels = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert labels <= set(ids)


def test_what_is_repeated_is_marked(comparison, read_page):
    page = read_page(to_html(comparison))
    assert page.inside["mark"][1:] == ["tictic", "<script>"]  # the first explains the mark


def test_the_table_can_be_read_aloud(comparison, read_page):
    page = read_page(to_html(comparison))
    heads = [(attributes.get("scope"), text) for (_, attributes), text in zip(
        [tag for tag in page.tags if tag[0] == "th"], page.inside["th"], strict=True)]  # fmt: skip
    assert heads[: 1 + len(COLUMNS)] == [("col", "strategy"), *(("col", column.title) for column in COLUMNS)]
    assert heads[1 + len(COLUMNS) :] == [("row", one.name) for one in comparison.strategies]
    assert ("html", {"lang": "en"}) in page.tags
    cells = page.inside["td"]
    assert len(cells) == len(COLUMNS) * 3
    lowest = comparison.strategies[1].figures.overlap
    overlaps = [cells[row * len(COLUMNS) + 4] for row in range(3)]
    assert overlaps == ["▲highest 1.00", f"▼lowest {lowest:.2f}", "–"]


def test_bars_are_shares_of_the_columns_highest(comparison, read_page):
    page = read_page(to_html(comparison))
    cells = [attributes["style"] for tag, attributes in page.tags if tag == "td"]
    entropy = [cells[row * len(COLUMNS) + 6] for row in range(3)]
    assert entropy == ["--share: 100.0%", "--share: 100.0%", "--share: 0.0%"]
    tokens = [cells[row * len(COLUMNS) + 8] for row in range(3)]
    most = comparison.strategies[1].figures.tokens
    assert tokens == [f"--share: {100 * 9 / most:.1f}%", "--share: 100.0%", "--share: 0.0%"]


def test_the_page_says_what_was_not_read(comparison, read_page):
    cut = replace(comparison, prompt_tokens=40, prompt_tokens_read=8)
    words = "".join(read_page(to_html(cut)).texts)
    assert "Of the prompt's 40 tokens the last 8 were read." in words
    assert "were read" not in "".join(read_page(to_html(comparison)).texts)


def contrast(style, ink, paper):
    """Of two colours of the style, by name: WCAG 2.2's ratio."""

    def luminance(name):
        code = re.search(rf"--{name}: #(\w{{6}})", style)[1]
        parts = [int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("ink", "paper"),
    [("ink", "page"), ("ink", "box"), ("ink", "bar"), ("soft", "page"), ("soft", "box"), ("accent", "page"),
     ("on-again", "again")],
)  # fmt: skip
def test_every_ink_can_be_read_on_its_paper(comparison, ink, paper):
    light, dark = to_html(comparison).split("prefers-color-scheme: dark")
    assert contrast(light, ink, paper) >= 4.5
    assert contrast(dark, ink, paper) >= 4.5
