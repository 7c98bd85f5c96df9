"""Records → documents: what the fields of a JSON object, or of a row of a table, must hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pellucid.config import nearest
from pellucid.data.sources.base import Document, Reading
from pellucid.data.sources.content import Unusable

_SURROGATE = re.compile("[\ud800-\udfff]")


def document(strings: Sequence[str], reading: Reading, where: str) -> Document | None:
    """The document of a record's strings, one a field that is read; None where they are empty.

    Raises Unusable for half a pair.
    """
    if len(strings) == 1:
        return Document(strings[0], where) if strings[0] else None
    if not any(strings):
        return None
    if not all(strings):
        name = reading.fields[list(strings).index("")]
        raise Unusable(
            "half a pair",
            f"field {name!r} is empty; a pair needs a source and a target: remove the line, or complete it",
        )
    return Document(strings[0], where, target=strings[1])


def strings_of(value: Any, reading: Reading) -> list[str]:
    """The strings in the fields that are read. Raises Unusable where JSON holds anything else."""
    if not isinstance(value, dict):
        wanted = " and ".join(f"a field {name!r}" for name in reading.fields)
        raise Unusable("not an object", f"wanted a JSON object with {wanted}, not {_kind(value)}")
    fields = cast(dict[str, Any], value)
    return [_string_of(fields, name, reading) for name in reading.fields]


def _string_of(fields: dict[str, Any], name: str, reading: Reading) -> str:
    if name not in fields:
        raise Unusable("no such field", missing(name, fields, reading))
    text = fields[name]
    if text is None:
        raise no_text(name)
    if not isinstance(text, str):
        raise Unusable("not a string", f"field {name!r} holds {_kind(text)}, not a string")
    return text


def missing(name: str, known: Iterable[str], reading: Reading) -> str:
    """What to say where records have no field of this name."""
    known = list(known)
    fix = (
        "name the field that holds the text with data.text_field"
        if reading.pair_fields is None
        else "name the fields of a pair with data.objective.source_field and data.objective.target_field"
    )
    names = ", ".join(known) or "none"
    return f"there is no field {name!r} (fields: {names}); {fix}{nearest(name, known)}"


def no_text(name: str) -> Unusable:
    return Unusable("no text", f"field {name!r} holds null, not a string")


def require_text(strings: Sequence[str], reading: Reading) -> None:
    """Raise Unusable where a string holds half of a surrogate pair, which JSON can say and UTF-8 cannot."""
    for name, text in zip(reading.fields, strings, strict=True):
        if _SURROGATE.search(text):
            raise Unusable(
                "half a surrogate pair", f"field {name!r} holds half of a surrogate pair, which is not text"
            )


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")
