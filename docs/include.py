"""Keeps the code in these pages equal to the code in the sources.

A page marks a block with the file and the name whose text it shows; the block below the mark is replaced by
that function's or class's own lines:

    <!-- code: src/pellucid/model/norms/rmsnorm.py RMSNorm.forward -->

`python docs/include.py` rewrites every page; a test fails while a page differs from the sources.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_BLOCK = re.compile(r"^<!-- code: (\S+) (\S+) -->\n(?:```python\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def region(path: Path, name: str) -> str:
    """The lines of a class, function or method (`Class.method`), dedented, without its docstring."""
    source = path.read_text(encoding="utf-8")
    found: ast.AST = ast.parse(source)
    for part in name.split("."):
        below = [node for node in ast.iter_child_nodes(found) if getattr(node, "name", None) == part]
        if not below:
            raise SystemExit(f"{path.relative_to(ROOT)}: has no {name}; mend the mark in the page")
        found = below[0]
    assert isinstance(found, (ast.ClassDef, ast.FunctionDef))
    lines = source.splitlines()
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)]) - 1
    kept = set(range(first, found.end_lineno or first))
    if ast.get_docstring(found) is not None:
        text = found.body[0]
        kept -= set(range(text.lineno - 1, text.end_lineno or text.lineno))
    return textwrap.dedent("\n".join(line for i, line in enumerate(lines) if i in kept)).strip("\n")


def refreshed(page: str) -> str:
    """The page with every marked block as the sources have it now."""

    def block(mark: re.Match[str]) -> str:
        path, name = mark.groups()
        return f"<!-- code: {path} {name} -->\n```python\n{region(ROOT / path, name)}\n```\n"

    return _BLOCK.sub(block, page)


def pages() -> list[Path]:
    """Every page with a marked block."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _BLOCK.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = refreshed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"rewrote {page.relative_to(ROOT)}\n")
