"""The shell of every HTML page: head, colours, letters. Light and dark; no script, and nothing from a network."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from html import escape

Colours = Mapping[str, tuple[str, str]]
"""Names of CSS variables and their colours, on a light page and on a dark one."""

COLOURS: Colours = {
    "page": ("#fdfdfb", "#14181d"),
    "ink": ("#1d2733", "#e3e7eb"),
    "soft": ("#57616c", "#98a3af"),
    "line": ("#d9dde2", "#343c46"),
    "box": ("#f2f4f6", "#1d232a"),
    "accent": ("#0b6e99", "#58b7e0"),
}

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 0; }
h3 { font-size: .9rem; margin: 0; color: var(--soft); }
blockquote { margin: 0 0 1rem; padding: .3rem 1rem; border-left: 4px solid var(--accent); font-size: 1.2rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); padding-top: 1.2rem; margin-top: 1.8rem; }
a { color: var(--accent); }
code, pre, table { font-family: ui-monospace, "SF Mono", Consolas, monospace; font-size: .85rem; }
.remark { color: var(--soft); font-size: .9rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""
"""What all pages share. A page's own style comes after it."""


def page(
    title: str, body: str, *, style: str = "", colours: Colours | None = None, width: str = "50rem"
) -> str:
    """A whole page.

    title: plain text, which is escaped; body and style: as they are; colours: further ones, for `var(--name)`;
    width: the widest it gets.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>
{colour_style({**COLOURS, **(colours or {})})}
{_STYLE.strip()}
body {{ max-width: {width}; }}
{style.strip()}
</style>
</head>
<body>
{body.strip()}
</body>
</html>
"""


def colour_style(colours: Colours) -> str:
    """The colours as CSS variables that follow the reader's choice of light or dark."""
    light, dark = ("".join(f" --{name}: {pair[side]};" for name, pair in colours.items()) for side in (0, 1))
    return (
        f":root {{ color-scheme: light dark;{light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}"
    )


def escaped(text: str) -> str:
    """Any text as HTML; control characters, which HTML does not allow, and lone surrogates become U+FFFD."""
    return escape("".join("\ufffd" if _is_barred(character) else character for character in text))


def _is_barred(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
