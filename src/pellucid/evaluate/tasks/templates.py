"""Text made from the fields of a record: `"Question: {question.stem|question}\\nAnswer:"`. Nothing is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, cast

from pydantic import AfterValidator

from pellucid.config import nearest
from pellucid.errors import DataError

Record = Mapping[str, Any]
Change = Callable[[str], str]


def _before_blank(text: str) -> str:
    return text[: _blank(text)]


def _after_blank(text: str) -> str:
    return text[_blank(text) + 1 :]


def _blank(text: str) -> int:
    place = text.find("_")
    if place < 0:
        raise DataError(f"there is no blank, _, in {text!r}")
    return place


CHANGES: Mapping[str, Change] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "capitalize": str.capitalize,
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "but_last_character": lambda text: text[:-1],
    "but_last_word": lambda text: " ".join(text.rstrip().split(" ")[:-1]),
    "last_word": lambda text: text.rstrip().split(" ")[-1],
    "before_blank": _before_blank,
    "after_blank": _after_blank,
}
"""What may be done to a field's text: `{premise:strip:but_last_character}`. Words are what single spaces divide."""


def fill(template: str, record: Record, words: Mapping[str, Mapping[str, str]]) -> str:
    """The template with its fields filled in. `words` are further changes: tables of what stands for what.

    Raises DataError for a field that the record has not, or that holds no text.
    """
    return "".join(
        literal + ("" if field is None else _text(field, changes or "", record, words))
        for literal, field, changes, _ in Formatter().parse(template)
    )


def _text(field: str, changes: str, record: Record, words: Mapping[str, Mapping[str, str]]) -> str:
    value = find(field, record, TEXT)
    text = value if isinstance(value, str) else str(value)
    for change in filter(None, changes.split(":")):
        if change in CHANGES:
            text = CHANGES[change](text)
        elif text in words[change]:
            text = words[change][text]
        else:
            raise DataError(
                f"field {field!r} holds {text!r}, which is none of {', '.join(map(repr, words[change]))}"
            )
    return text


@dataclass(frozen=True)
class Wanted:
    """What a field is to hold."""

    name: str
    fits: Callable[[Any], bool]


def find(paths: str, record: Record, wanted: Wanted) -> Any:
    """What stands at the first of some paths, divided by |, that there is and that holds what is wanted.

    A path is field names divided by dots. Of a list, it goes on in each of its members. Raises DataError that says
    which fields there are, or what stands there instead.
    """
    found: list[tuple[str, Any]] = []
    for path in paths.split("|"):
        try:
            value = _at(path.split("."), record)
        except KeyError:
            continue
        if wanted.fits(value):
            return value
        found.append((path, value))
    if found:
        path, value = found[0]
        raise DataError(f"field {path!r} holds {shortened(value)}, not {wanted.name}")
    names = paths.split("|")
    first = names[0].split(".", maxsplit=1)[0]
    known = list(map(str, record))
    raise DataError(
        f"there is no field {' or '.join(map(repr, names))} (fields: {', '.join(known) or 'none'})"
        + nearest(first, known)
    )


def _at(names: list[str], value: Any) -> Any:
    """Raises KeyError where the path ends too early."""
    if not names:
        return value
    if isinstance(value, Mapping):
        return _at(names[1:], cast(Record, value)[names[0]])
    if isinstance(value, list):
        return [_at(names, member) for member in cast(list[Any], value)]
    raise KeyError(names[0])


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


TEXT = Wanted("text", _is_text)
TEXTS = Wanted("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))
LABEL = Wanted("a label", lambda value: isinstance(value, (str, int)))


def shortened(value: Any) -> str:
    """A value as messages show it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


# What a description may say ---------------------------------------------------------------------------


def changes_of(template: str) -> Iterable[str]:
    """The names of all changes that a template asks for."""
    for _, _, changes, _ in Formatter().parse(template):
        yield from filter(None, (changes or "").split(":"))


def _checked(template: str) -> str:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"{template!r} is no template: {error}; a brace that is text is written twice"
        ) from None
    for _, field, _, conversion in parts:
        if field == "" or conversion:
            raise ValueError(
                f"{template!r}: a field is written {{name}}, {{name.of.a.field}} or {{name:change}}"
            )
    return template


Template = Annotated[str, AfterValidator(_checked)]
"""Text with fields in braces: {name}, {path.to.it}, {this|or_this}, {name:change:change}."""
