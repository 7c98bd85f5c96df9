"""The shell of a page: whole, escaped, light and dark, and it asks nothing of a network."""

from html.parser import HTMLParser

from pellucid.report.page import COLOURS, escaped, page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append((self.open[-1] if self.open else "", data))


def test_a_page_is_whole_and_its_title_is_text():
    tags = Tags()
    tags.feed(page("a < b </title>\x00", "<h1>body</h1>", style="h1 { margin: 0; }"))
    assert tags.open == []
    assert ("title", "a < b </title>\ufffd") in tags.words
    assert ("h1", "body") in tags.words
    assert any(tag == "style" and "h1 { margin: 0; }" in words for tag, words in tags.words)


def test_a_page_has_every_colour_light_and_dark():
    light, dark = page("t", "", colours={"own": ("#000001", "#000002")}).split("prefers-color-scheme: dark")
    for name, (on_light, on_dark) in {**COLOURS, "own": ("#000001", "#000002")}.items():
        assert f"--{name}: {on_light};" in light
        assert f"--{name}: {on_dark};" in dark


def test_what_html_does_not_allow_is_marked():
    assert (
        escaped("a\x1b[1m\x00\ud800\n\t<b>'\"&é") == "a\ufffd[1m\ufffd\ufffd\n\t&lt;b&gt;&#x27;&quot;&amp;é"
    )
    escaped("\ud800").encode()
