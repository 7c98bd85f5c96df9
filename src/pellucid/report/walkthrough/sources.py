"""Where a part's code is and what it says of itself, read from the class, so that neither can drift."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import pellucid

_PACKAGE = Path(pellucid.__file__).parent


def file_of(part: object) -> tuple[str, ...]:
    """The file of a part's class as it is named in the repository; empty for classes of other libraries."""
    source = Path(inspect.getsourcefile(part if isinstance(part, type) else type(part)) or "")
    if not source.is_relative_to(_PACKAGE):
        return ()
    return (f"src/pellucid/{source.relative_to(_PACKAGE).as_posix()}",)


def formula_of(part: object, *, absent: Iterable[str] = ()) -> str:
    """The first sentence of a class's docstring, which in this project is its formula.

    absent: clauses of it that this part makes no use of; they are left out. Raises ValueError for a clause that
    the docstring does not have (any more).
    """
    kind = part if isinstance(part, type) else type(part)
    paragraph = (inspect.cleandoc(kind.__doc__) if kind.__doc__ else "").split("\n\n")[0]
    sentence = " ".join(paragraph.split()).split(" Source:")[0]
    formula = re.split(r"(?<=[^.\s]{2})\.\s", f"{sentence} ")[0].strip().rstrip(".")
    for clause in absent:
        if clause not in formula:
            raise ValueError(f"{kind.__name__}: its formula ({formula!r}) has no {clause!r} to leave out")
        formula = formula.replace(clause, "")
    return formula
