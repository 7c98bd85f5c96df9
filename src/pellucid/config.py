"""Configs: frozen values ⇄ plain mappings ⇄ TOML, dotted overrides, and errors that say what to type.

A config is a pydantic model that cannot be changed and refuses unknown keys. A family of parts is a
union of configs told apart by their `kind`; that union is the only registry. Everything here works on
any such config and knows none of them.
"""

from __future__ import annotations

import datetime
import difflib
import re
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
    """The base of every config: frozen, no unknown keys, finite numbers, field docstrings become descriptions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


ConfigT = TypeVar("ConfigT", bound=Config)


# Values and text ------------------------------------------------------------------------------------


def to_tree(config: Config) -> Tree:
    """The config as plain nested mappings of TOML values, a `kind` first. Keys whose value is None are left out."""
    return _kind_first(config.model_dump(mode="json", exclude_none=True))


def _kind_first(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    tree = cast(Tree, value)
    return {key: _kind_first(tree[key]) for key in sorted(tree, key="kind".__ne__)}


def to_toml(config: Config) -> str:
    """The config as TOML text; `from_tree(cls, tomllib.loads(text))` gives an equal config back."""
    return tomli_w.dumps(to_tree(config))


def read_toml(path: Path) -> Tree:
    """Read a TOML file. Raises ConfigError when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a mark
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {str(error.strerror).lower()}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def from_tree(cls: type[ConfigT], tree: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Validate plain mappings into a config. Raises ConfigError with one line for each fault.

    `where` is put before each message, e.g. the path of the file that the mapping came from.
    """
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, cls, where=where)) from None


def from_union(union: Any, tree: Mapping[str, Any], *, where: str = "") -> Any:
    """Validate plain mappings into the member of a union that their `kind` names. Raises ConfigError as `from_tree`."""
    choices, prefix = members(union), f"{where}: " if where else ""
    kind = tree.get("kind")
    if kind not in choices:
        hint = nearest(str(kind), choices) if kind is not None else ""
        raise ConfigError(f"{prefix}kind: there is no kind {kind!r}{hint} (kinds: {', '.join(choices)})")
    return from_tree(choices[kind], tree, where=where)


# Merging --------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid over `base`, both left as they are. A table that names another `kind` replaces the one below.

    Where a table and a string meet, the string stands for a kind alone: `"gpt2"` for `{kind = "gpt2"}`.
    """
    if "kind" in base and over.get("kind", base["kind"]) != base["kind"]:
        return dict(over)
    return {**base, **{key: _laid(base.get(key), value) for key, value in over.items()}}


def _laid(below: Any, value: Any) -> Any:
    if isinstance(value, str) and isinstance(below, Mapping) and "kind" in below:
        value = {"kind": value}
    elif isinstance(value, Mapping) and isinstance(below, str):
        below = {"kind": below}
    if isinstance(value, Mapping) and isinstance(below, Mapping):
        return merge(cast(Tree, below), cast(Tree, value))
    return value


def override(tree: Mapping[str, Any], words: Iterable[str]) -> Tree:
    """Apply dotted overrides such as `model.norm.kind=layernorm` or `train.lr=3e-4`, in order.

    A value is read as TOML where it is TOML, else as a string, and merged as `merge` does; an empty value
    removes the key (for a `kind`, the table that it names), which puts its default back. Another `kind`
    resets its table to that kind's defaults, so a key of the same table written before it is an error, not
    silently lost.
    """
    result: Tree = dict(tree)
    written: list[tuple[str, ...]] = []
    for word in words:
        path, value = _split(word)
        for depth in range(1, len(path)):
            above = _at(result, path[:depth])
            if above is not None and not isinstance(above, (Mapping, str)):  # a string may name a kind
                here = ".".join(path[:depth])
                raise ConfigError(f"{word}: {here} is a single value ({above!r}) and has no keys below it")
        table = path[:-1] if path[-1] == "kind" and len(path) > 1 else path
        if value is None:
            result = _without(result, table)
            written = [earlier for earlier in written if earlier[: len(table)] != table]
            continue
        over = value
        for key in reversed(path):
            over = {key: over}
        result = merge(result, over)
        if lost := [".".join(earlier) for earlier in written if _at(result, earlier) is None]:
            raise ConfigError(
                f"{word}: resets {'.'.join(table)} to the defaults of {value!r} and would drop "
                f"{', '.join(lost)} written before it; write {word} first"
            )
        written.append(path)
    return result


def _at(tree: Mapping[str, Any], path: Iterable[str]) -> Any:
    """What lies at a path, or None."""
    found: Any = tree
    for key in path:
        found = cast(Tree, found).get(key) if isinstance(found, Mapping) else None
    return found


def _without(tree: Mapping[str, Any], path: tuple[str, ...]) -> Tree:
    """The tree without what lies at a path."""
    key, rest = path[0], path[1:]
    below = tree.get(key)
    if rest and isinstance(below, Mapping):
        return {**tree, key: _without(cast(Tree, below), rest)}
    return {k: v for k, v in tree.items() if rest or k != key}


def _split(word: str) -> tuple[tuple[str, ...], Any]:
    name, equals, text = word.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"{word!r} is not an override; write key.path=value, e.g. train.lr=3e-4")
    text = text.strip()
    if not text:
        return path, None
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return path, text
    value = read["value"]
    if len(read) > 1 or isinstance(value, (datetime.date, datetime.time)):  # which no config holds
        return path, text
    return path, value


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
        below = set(members(field.annotation).values())
        for member in below:
            paths += key_paths(member, f"{path}.")
        if not below:
            paths.append(path)
    return sorted(set(paths))


def explain(config: Config) -> str:
    """The config as TOML with each key's meaning above it; a key whose value is left out is commented out."""
    return "\n".join(_explained(config, "")) + "\n"


def _explained(config: Config, prefix: str) -> Iterator[str]:
    below: list[tuple[str, Config]] = []
    fields = type(config).model_fields
    for name in sorted(fields, key="kind".__ne__):
        field, value = fields[name], getattr(config, name)
        if isinstance(value, Config):
            below.append((name, value))
            continue
        if field.description:
            yield f"# {' '.join(field.description.split())}"
        tree = to_tree(config)
        yield tomli_w.dumps({name: tree[name]}).strip() if name in tree else f"# {name} ="
    for name, table in below:
        kinds = [kind for kind in members(type(config).model_fields[name].annotation) if kind]
        described = type(config).model_fields[name].description
        yield f"\n[{prefix}{name}]" + (f"  # {' '.join(described.split())}" if described else "")
        if len(kinds) > 1:
            yield f"# kinds: {', '.join(kinds)}"
        yield from _explained(table, f"{prefix}{name}.")


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two trees differ, as `path: old → new`."""
    lines: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(cast(Tree, old), cast(Tree, new), f"{prefix}{key}.")
        elif old != new:
            shown = ["(left out)" if value is None else str(value) for value in (old, new)]
            lines.append(f"{prefix}{key}: {shown[0]} → {shown[1]}")
    return lines


# Errors ---------------------------------------------------------------------------------------------


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`; did you mean 'x'?` for the nearest of the known words, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def describe(error: ValidationError, cls: type[Config], *, where: str = "") -> str:
    """One line a fault: where, what was wanted, what came, the allowed values and the nearest spelling."""
    prefix = f"{where}: " if where else ""
    return "\n".join(prefix + _describe_one(cast(Tree, fault), cls) for fault in error.errors())


def _describe_one(fault: Tree, cls: type[Config]) -> str:
    owner, path = _locate(cls, fault["loc"])
    fault_type, name, at = fault["type"], path.rpartition(".")[2], f"{path}: " if path else ""
    field = owner.model_fields.get(name)
    kinds = [kind for kind in members(field.annotation) if kind] if field else []
    choices = f" (kinds: {', '.join(kinds)})" if kinds else ""
    if fault_type == "extra_forbidden":
        of_kind = f" in kind {owner.model_fields['kind'].default!r}" if "kind" in owner.model_fields else ""
        known = sorted(owner.model_fields)
        return f"{at}there is no such key{of_kind}{_hint(cls, path, known)} (keys: {', '.join(known)})"
    if fault_type == "union_tag_invalid":
        tag = str(fault["ctx"]["tag"])
        return f"{path}.kind: there is no kind {tag!r}{nearest(tag, kinds)}{choices}"
    if fault_type == "union_tag_not_found":
        return f"{path}.kind: a kind is needed{choices}"
    if fault_type == "missing":
        return f"{at}a value is needed"
    if fault_type == "value_error":
        return f"{at}{fault['ctx']['error']}"
    came = "a table" if isinstance(fault["input"], Mapping) else repr(fault["input"])
    if fault_type in _BOUND_FAULTS and (interval := _interval(owner, name)):
        return f"{at}must be {interval}, not {came}"
    if fault_type in _WANTED:
        return f"{at}must be {_WANTED[fault_type]}{choices}, not {came}"
    hint = nearest(came.strip("'"), re.findall("'(.*?)'", str(fault.get("ctx", {}).get("expected", ""))))
    message = re.sub("^Input should be", "must be", fault["msg"])
    return f"{at}{message[0].lower()}{message[1:]}, not {came}{hint}"


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string (in quotes)",
    "tuple_type": "a list",
    "model_type": "a table of keys",
    "model_attributes_type": "a table with a kind",
}
"""What was wanted, by pydantic's name of the fault, where its own words are longer."""

_BOUND_FAULTS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def _interval(owner: type[Config], name: str) -> str:
    """Both ends of the range of a field, such as `more than 0 and at most 1`."""
    words = {
        "exclusiveMinimum": "more than",
        "minimum": "at least",
        "exclusiveMaximum": "less than",
        "maximum": "at most",
    }
    schema = owner.model_json_schema()["properties"].get(name, {})
    for choice in (schema, *schema.get("anyOf", ())):  # the range of `int | None` is that of one choice
        if bounds := [f"{word} {choice[key]}" for key, word in words.items() if key in choice]:
            return " and ".join(bounds)
    return ""


def _hint(cls: type[Config], path: str, known: Iterable[str]) -> str:
    """The same key in another table, else the nearest key of this table, else the nearest of all."""
    name, paths = path.rpartition(".")[2], key_paths(cls)
    if path in paths:  # a key of another kind of this table
        return ""
    elsewhere = [other for other in paths if other.endswith(f".{name}")]
    return nearest(path, elsewhere, cutoff=0) or nearest(name, known) or nearest(path, paths)


def _locate(cls: type[Config], location: tuple[str | int, ...]) -> tuple[type[Config], str]:
    """The config class that holds the faulty key, and its dotted path without pydantic's union tags."""
    owner, path = cls, list[str]()
    annotation: Any = None
    for part in location:
        choices = members(annotation)
        if part in choices and len(set(choices.values())) > 1:  # the tag of a union
            owner, annotation = choices[str(part)], None
            continue
        path.append(str(part))
        if isinstance(part, int):  # a place in a list or tuple
            annotation = next(iter(typing.get_args(annotation)), None)
            continue
        if choices:
            owner = next(iter(choices.values()))
        field = owner.model_fields.get(part)
        annotation = field.annotation if field else None
    return owner, ".".join(path)
