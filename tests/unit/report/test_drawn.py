"""What a walk looks like: aligned on a terminal of 80 columns, and one page that needs nothing else."""

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from pellucid.report.walkthrough import Origin, Section, Walkthrough, print_walkthrough, to_html, walk
from pellucid.report.walkthrough.values import Bars, Heatmap, Table, Turn, Turns
from pellucid.tokenizers import build


def drawn(walkthrough: Walkthrough, width: int = 80, **settings) -> list[str]:
    file = io.StringIO()
    print_walkthrough(walkthrough, Console(file=file, width=width, **settings))
    return file.getvalue().splitlines()


def alone(*pictures, **words) -> Walkthrough:
    section = Section("A part", words.pop("words", "Words."), {}, pictures, **words)
    return Walkthrough("A walk", "text", (section,))


# The terminal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["rope", "learned", "t5"])
def test_every_line_fits_80_columns_and_is_plain_when_piped(decoder, encoder_decoder, stroll, position):
    for model in (decoder(position={"kind": position}), encoder_decoder(position={"kind": position})):
        lines = drawn(stroll(model))
        assert [line for line in lines if cell_len(line) > 80] == []
        assert "\x1b" not in "".join(lines)
        assert all(line == line.rstrip() for line in lines)


def test_a_decoder_is_told_in_some_150_lines(decoder, stroll):
    assert 120 <= len(drawn(stroll(decoder(), "To be, or not to be"))) <= 170


def test_a_terminal_gets_colours(decoder, stroll):
    lines = drawn(stroll(decoder()), force_terminal=True, color_system="standard")
    assert any("\x1b[" in line for line in lines)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]
    assert plain == drawn(stroll(decoder()))


def test_wide_lines_of_words_are_kept_readable(decoder, stroll):
    assert max(map(len, drawn(stroll(decoder()), width=200))) <= 96


def test_attention_is_drawn_by_shades():
    shares = ((1.0, None, None), (0.3, 0.7, None), (0.01, 0.05, 0.94))
    lines = drawn(alone(Heatmap("a picture", ("x", "yy", "z"), ("x", "yy", "z"), shares)))
    start = lines.index("  a picture")
    assert lines[start + 1 : start + 5] == [
        "      x  yy z",
        "   x  ███",
        "  yy  ▓▓▓███",
        "   z  ···░░░███",
    ]


def test_the_newest_part_of_a_large_picture_is_drawn():
    names = tuple(f"t{n}" for n in range(60))
    shares = tuple(tuple(1.0 if key == query else 0.0 for key in range(60)) for query in range(60))
    lines = drawn(alone(Heatmap("a picture", names, names, shares)))
    assert "  (the last 32 of 60 rows, 36 of 60 columns; --html draws all)" in lines
    assert next(line for line in lines if line.strip().startswith("t59")).endswith("██")
    assert not any(line.strip().startswith("t27 ") for line in lines)
    assert max(map(cell_len, lines)) <= 80


def test_wide_characters_keep_the_columns(encoder_decoder):
    model = encoder_decoder(vocab_size=50257)
    walkthrough = walk(
        model, build("gpt2"), "naïve 日本 [bold]x[/bold] 😀", origin=Origin.random("x", seed=0)
    )
    lines = drawn(walkthrough)
    assert [line for line in lines if cell_len(line) > 80] == []
    assert any("[/" in line for line in lines)  # no markup is read out of the text
    rows = [line for line in lines if line.endswith(("·", "░", "▒")) and "x" in line]
    assert len({cell_len(line) for line in rows[:5]}) == 1


def test_control_characters_never_reach_the_terminal(decoder, stroll):
    text = "\x1b[31m\x07\r\n\t\x00\x80"
    lines = "\n".join(drawn(stroll(decoder(), text)))
    assert not {"\x1b", "\x07", "\r", "\t", "\x00", "\x80"} & set(lines)
    assert "\\x1b" in lines


def test_numbers_stand_right_aligned():
    lines = drawn(alone(Table(("name", "count"), (("a", "1"), ("long", "1,000")))))
    assert lines[-3:] == ["  name  count", "  a         1", "  long  1,000"]


def test_bars_are_as_long_as_their_numbers():
    lines = drawn(alone(Bars("sizes", (("a", 1.0, "one"), ("b", 0.5, ""), ("c", 0.0, "")))))
    lengths = [line.count("█") for line in lines[-3:]]
    assert lengths == [32, 16, 0]
    assert lines[-3].endswith("█ one")


def test_turned_vectors_point_where_they_point():
    turn = Turn("0 x", (1.0, 0.0), (0.0, 1.0), 1.5707963)
    lines = drawn(alone(Turns("turns", (turn, replace(turn, angle=-1.5707963, after=(0.0, -1.0))))))
    assert "→ ( 1.000,  0.000)  ↑ ( 0.000,  1.000)      90.0°   1.000" in lines[-2]
    assert "→ ( 1.000,  0.000)  ↓ ( 0.000, -1.000)     270.0°   1.000" in lines[-1]


def test_a_long_title_is_broken():
    lines = drawn(replace(alone(), title="One sentence through preset " + "model.part.kind=other " * 4))
    assert max(map(cell_len, lines)) <= 80


def test_next_steps_end_the_walk():
    lines = drawn(replace(alone(), next_steps=(("pellucid train quick", "to see it trained"),)))
    assert lines[-3:] == ["", "What to try next", "  pellucid train quick  to see it trained"]


# The page ---------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_has_every_section(decoder, encoder_decoder, stroll, read_page):
    for model in (decoder(), encoder_decoder(position={"kind": "t5"}, feed_forward={"kind": "moe"})):
        walkthrough = stroll(model)
        page = read_page(to_html(walkthrough))
        text = "".join(page.texts)
        for number, section in enumerate(walkthrough.sections, start=1):
            assert f"{number} · {section.title}" in text
            assert section.words in text
            assert all(file in text for file in section.files)


def test_the_page_asks_nothing_of_the_network(decoder, stroll, read_page):
    html = to_html(stroll(decoder()))
    page = read_page(html)
    assert "http" not in html
    assert "url(" not in html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not {"src", "href"} & {name for _, attributes in page.tags for name in attributes}
    assert "prefers-color-scheme: dark" in html


def test_the_page_shows_what_was_typed_as_text(decoder, stroll, read_page):
    html = to_html(stroll(decoder(), "<script>&\"'"))
    assert "<script" not in html
    page = read_page(html)
    assert page.count("blockquote") == 1
    assert "<script>&\"'" in "".join(page.texts)


def test_every_share_in_sight_is_a_cell_that_says_what_it_is(decoder, stroll, read_page):
    section = stroll(decoder(), "abc", head=0).section("Attention")
    page = read_page(to_html(Walkthrough("A walk", "abc", (section,))))
    cells = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(cells) == 1 + 2 + 3  # what the mask hides is left out
    share = section.numbers["weights"][2][1]
    assert f"c (2) takes {share:.1%} from b (1)" in page.texts
    assert float(cells[4]["fill-opacity"]) == pytest.approx(share**0.5, abs=1e-3)
