"""Configs: frozen values ⇄ plain mappings ⇄ TOML, dotted overrides, and errors that say what to type.

A config is a pydantic model that cannot be changed and refuses unknown keys. A family of parts is a
union of configs told apart by their `kind`; that union is the only registry. Everything here works on
any such config and knows none of them.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from pellucid.errors import ConfigError

Tree = dict[str, Any]


class Config(BaseModel):
    """The base of every config: frozen, no unknown keys, field docstrings become descriptions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


ConfigT = TypeVar("ConfigT", bound=Config)


# Values and text ------------------------------------------------------------------------------------


def to_tree(config: Config) -> Tree:
    """The config as plain nested mappings of TOML values. Keys whose value is None are left out."""
    return config.model_dump(mode="json", exclude_none=True)


def to_toml(config: Config) -> str:
    """The config as TOML text; `from_tree(cls, tomllib.loads(text))` gives an equal config back."""
    return tomli_w.dumps(to_tree(config))


def read_toml(path: Path) -> Tree:
    """Read a TOML file. Raises ConfigError when it is missing or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def from_tree(cls: type[ConfigT], tree: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Validate plain mappings into a config. Raises ConfigError with one line for each fault.

    `where` is put before each message, e.g. the path of the file that the mapping came from.
    """
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, cls, where=where)) from None


# Merging --------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid over `base`. A table in `over` that names another `kind` replaces the table of `base`."""
    merged: Tree = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value, below = cast(Tree, value), cast(Tree, below)
            changed = "kind" in value and value["kind"] != below.get("kind")
            merged[key] = dict(value) if changed else merge(below, value)
        else:
            merged[key] = value
    return merged


def override(tree: Mapping[str, Any], words: Iterable[str]) -> Tree:
    """Apply dotted overrides such as `model.norm.kind=layernorm` or `train.lr=3e-4`, in order.

    A value is read as TOML where it is TOML, else as a string; an empty value removes the key, which
    puts its default back. Setting `kind` to another kind resets that table to the new kind's defaults, so
    a key of the same table written before it is an error, not silently lost.
    """
    result = merge({}, tree)
    written: list[tuple[str, ...]] = []
    for word in words:
        path, value = _split(word)
        table = result
        for depth, part in enumerate(path[:-1]):
            below = table.get(part)
            if isinstance(below, str):  # a union given by its kind alone
                below = {"kind": below}
            if below is not None and not isinstance(below, Mapping):
                here = ".".join(path[: depth + 1])
                raise ConfigError(f"{word}: {here} is a single value ({below!r}) and has no keys below it")
            table[part] = dict(cast(Tree, below) if below is not None else {})
            table = table[part]
        key = path[-1]
        node, name = (table, path[:-1]) if key == "kind" else (table.get(key), path)
        names_a_kind = key == "kind" or (
            isinstance(node, Mapping) and "kind" in node and isinstance(value, str)
        )
        if names_a_kind and cast(Tree, node).get("kind") != value:
            stale = [".".join(w) for w in written if w[: len(name)] == name and len(w) > len(name)]
            if stale:
                raise ConfigError(
                    f"{word}: resets {'.'.join(name)} to the defaults of {value!r} and would drop "
                    f"{', '.join(stale)} written before it; write {word} first"
                )
            cast(Tree, node).clear()
            cast(Tree, node)["kind"] = value
        elif names_a_kind:
            pass
        elif value is None:
            table.pop(key, None)
        else:
            table[key] = value
        written.append(path)
    return result


def _split(word: str) -> tuple[tuple[str, ...], Any]:
    name, equals, text = word.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"{word!r} is not an override; write key.path=value, e.g. train.lr=3e-4")
    text = text.strip()
    if not text:
        return path, None
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return path, text


# Looking at a config class --------------------------------------------------------------------------


def members(annotation: Any) -> dict[str, type[Config]]:
    """The configs that a field may hold: by `kind` for a union, by "" for a single config class."""
    found: dict[str, type[Config]] = {}
    for candidate in _alternatives(annotation):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            kind = candidate.model_fields.get("kind")
            for name in typing.get_args(kind.annotation) if kind else ("",):
                found[name] = candidate
    return found


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _alternatives(argument)
    else:
        yield annotation


def key_paths(cls: type[Config], prefix: str = "") -> list[str]:
    """Every dotted key that a config of this class can have, over all kinds of its unions."""
    paths: list[str] = []
    for name, field in cls.model_fields.items():
        path = f"{prefix}{name}"
        below = {c for c in members(field.annotation).values()}
        for member in below:
            paths += key_paths(member, f"{path}.")
        if not below:
            paths.append(path)
    return sorted(set(paths))


# Errors ---------------------------------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known words, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def describe(error: ValidationError, cls: type[Config], *, where: str = "") -> str:
    """One line a fault: where, what was wanted, what came, the allowed values and the nearest spelling."""
    prefix = f"{where}: " if where else ""
    return "\n".join(prefix + _describe_one(cast(Tree, fault), cls) for fault in error.errors())


def _describe_one(fault: Tree, cls: type[Config]) -> str:
    owner, path = _locate(cls, fault["loc"])
    came, kind = fault.get("input"), fault["type"]
    if kind == "extra_forbidden":
        name = path.rsplit(".", 1)[-1]
        known = sorted(owner.model_fields)
        hint = nearest(name, known) or nearest(path, [p for p in key_paths(cls) if p != path])
        of_kind = f" in kind {owner.model_fields['kind'].default!r}" if "kind" in owner.model_fields else ""
        return f"{path}: there is no such key{of_kind}{hint} (keys: {', '.join(known)})"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = fault["ctx"].get("expected_tags", "")
        tag = fault["ctx"].get("tag")
        kinds = [word.strip(" '") for word in expected.split(",")] if expected else []
        hint = nearest(str(tag), kinds) if tag else ""
        wanted = f" (kinds: {', '.join(kinds)})" if kinds else ""
        return f"{path}.kind: {'there is no kind ' + repr(tag) if tag else 'a kind is needed'}{hint}{wanted}"
    if kind == "value_error":
        message = str(fault["ctx"]["error"])
        return f"{path}: {message}" if path else message
    if kind == "missing":
        return f"{path}: a value is needed"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    hint = ""
    if kind == "literal_error" and isinstance(came, str):
        field = owner.model_fields.get(path.rsplit(".", 1)[-1])
        hint = nearest(came, [str(a) for a in typing.get_args(field.annotation)]) if field else ""
    return f"{path}: {message}, not {came!r}{hint}"


def _locate(cls: type[Config], location: tuple[str | int, ...]) -> tuple[type[Config], str]:
    """The config class that holds the faulty key, and its dotted path without pydantic's union tags."""
    owner, path = cls, list[str]()
    choices: dict[str, type[Config]] = {}
    for part in location:
        if len(set(choices.values())) == 1:  # one class, which pydantic gives no tag
            owner = next(iter(choices.values()))
        elif part in choices:
            owner, choices = choices[str(part)], {}
            continue
        path.append(str(part))
        field = owner.model_fields.get(str(part))
        choices = members(field.annotation) if field else {}
    return owner, ".".join(path)
