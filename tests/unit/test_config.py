"""Configs ⇄ TOML, merging, dotted overrides, and what each message says."""

import copy
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pellucid.config import (
    Config,
    from_tree,
    key_paths,
    members,
    merge,
    nearest,
    override,
    read_toml,
    to_toml,
    to_tree,
)
from pellucid.errors import ConfigError
from pellucid.model import DecoderConfig
from pellucid.model.norms import NormConfig
from pellucid.presets import MODELS, RUNS, model_preset, run_preset
from pellucid.train.config import RunConfig, TrainConfig


class Red(Config):
    kind: Literal["red"] = "red"
    depth: float = Field(default=0.5, gt=0, le=1)


class Blue(Config):
    kind: Literal["blue"] = "blue"
    width: int = 3
    names: tuple[str, ...] = ()


Colour = Annotated[Red | Blue, Field(discriminator="kind")]


class Brush(Config):
    colour: Colour = Red()
    hairs: Annotated[int, Field(ge=10, lt=100)] | None = None
    mode: Literal["wet", "dry"] | None = None
    is_new: bool = True
    label: str = "brush"


class Box(Config):
    brush: Brush = Brush()
    palette: tuple[Colour, ...] = ()
    price: float
    """What it costs."""


TREE = to_tree(Box(price=2.5))
RUN = RunConfig(model=DecoderConfig(d_model=256, num_heads=4, max_seq_len=256), train=TrainConfig(steps=10))


def fault(tree: dict[str, Any], cls: type[Config] = Box) -> str:
    with pytest.raises(ConfigError) as raised:
        from_tree(cls, tree)
    return str(raised.value)


def changed(*words: str) -> Box:
    return from_tree(Box, override(TREE, words))


# Values and text


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Red().depth = 0.1  # type: ignore[misc]


def test_field_docstrings_are_descriptions() -> None:
    assert Box.model_fields["price"].description == "What it costs."


def test_none_is_left_out_of_the_tree() -> None:
    assert TREE == {
        "brush": {"colour": {"kind": "red", "depth": 0.5}, "is_new": True, "label": "brush"},
        "palette": [],
        "price": 2.5,
    }


@pytest.mark.parametrize("name", RUNS)
def test_every_run_preset_survives_toml(name: str) -> None:
    config = run_preset(name)
    assert from_tree(RunConfig, tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("name", MODELS)
def test_every_model_preset_survives_toml(name: str) -> None:
    config = model_preset(name)
    assert from_tree(type(config), tomllib.loads(to_toml(config))) == config


def test_every_field_that_may_be_none_is_none_by_default() -> None:
    """Else None, which TOML cannot say, would come back as the default."""
    seen: set[type[Config]] = set()

    def look(cls: type[Config]) -> None:
        seen.add(cls)
        for name, field in cls.model_fields.items():
            if type(None) in getattr(field.annotation, "__args__", ()):
                assert field.default is None, f"{cls.__name__}.{name}"
            for member in members(field.annotation).values():
                look(member)

    look(RunConfig)
    assert len(seen) > 10


def test_read_toml(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[train]\nlr = 3e-4\n", encoding="utf-8")
    assert read_toml(file) == {"train": {"lr": 3e-4}}
    file.write_text("label = 'é'\n", encoding="utf-8-sig")  # as editors on Windows do
    assert read_toml(file) == {"label": "é"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"run\.toml: no such config file"),
        (b"lr 3", r"run\.toml: not a TOML file: .*line 1"),
        (b"\xff\xfe\x00", r"run\.toml: not a TOML file: .*utf-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_toml(file)


def test_a_directory_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        read_toml(tmp_path)


# Messages


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        # an unknown key: the keys there are, and the nearest spelling
        (
            {"brush": {"labell": 1}, "price": 1},
            "brush.labell: there is no such key; did you mean 'label'? "
            "(keys: colour, hairs, is_new, label, mode)",
        ),
        (
            {"brush": {"colour": {"kind": "red", "dept": 1}}, "price": 1},
            "brush.colour.dept: there is no such key in kind 'red'; did you mean 'depth'? (keys: depth, kind)",
        ),
        (
            {"brush": {"colour": {"kind": "blue", "depth": 1}}, "price": 1},  # a field of another kind
            "brush.colour.depth: there is no such key in kind 'blue' (keys: kind, names, width)",
        ),
        (
            {"hairs": 5, "price": 1},  # the right key in the wrong table
            "hairs: there is no such key; did you mean 'brush.hairs'? (keys: brush, palette, price)",
        ),
        ({"zzz": 1, "price": 1}, "zzz: there is no such key (keys: brush, palette, price)"),
        # kinds
        (
            {"brush": {"colour": {"kind": "bleu"}}, "price": 1},
            "brush.colour.kind: there is no kind 'bleu'; did you mean 'blue'? (kinds: red, blue)",
        ),
        (
            {"brush": {"colour": {"kind": "x"}}, "price": 1},
            "brush.colour.kind: there is no kind 'x' (kinds: red, blue)",
        ),
        (
            {"brush": {"colour": {"depth": 1}}, "price": 1},
            "brush.colour.kind: a kind is needed (kinds: red, blue)",
        ),
        (
            {"brush": {"colour": 5}, "price": 1},
            "brush.colour: must be a table with a kind (kinds: red, blue), not 5",
        ),
        # ranges, both ends
        (
            {"brush": {"colour": {"kind": "red", "depth": 1.01}}, "price": 1},
            "brush.colour.depth: must be more than 0 and at most 1, not 1.01",
        ),
        (
            {"brush": {"colour": {"kind": "red", "depth": 0}}, "price": 1},
            "brush.colour.depth: must be more than 0 and at most 1, not 0",
        ),
        ({"brush": {"hairs": 9}, "price": 1}, "brush.hairs: must be at least 10 and less than 100, not 9"),
        (
            {"brush": {"hairs": 100}, "price": 1},
            "brush.hairs: must be at least 10 and less than 100, not 100",
        ),
        # types
        ({"brush": {"hairs": "many"}, "price": 1}, "brush.hairs: must be a whole number, not 'many'"),
        ({"brush": {"hairs": 10.5}, "price": 1}, "brush.hairs: must be a whole number, not 10.5"),
        ({"price": "dear"}, "price: must be a number, not 'dear'"),
        ({"price": float("nan")}, "price: must be a finite number, not nan"),
        ({"price": float("inf")}, "price: must be a finite number, not inf"),
        ({"brush": {"is_new": "maybe"}, "price": 1}, "brush.is_new: must be true or false, not 'maybe'"),
        ({"brush": {"label": 7}, "price": 1}, "brush.label: must be a string (in quotes), not 7"),
        (
            {"brush": {"label": {"a": 7}}, "price": 1},
            "brush.label: must be a string (in quotes), not a table",
        ),
        ({"brush": 7, "price": 1}, "brush: must be a table of keys, not 7"),
        ({"palette": 7, "price": 1}, "palette: must be a list, not 7"),
        # allowed values
        (
            {"brush": {"mode": "we"}, "price": 1},
            "brush.mode: must be 'wet' or 'dry', not 'we'; did you mean 'wet'?",
        ),
        # a missing value
        ({}, "price: a value is needed"),
        # inside a list
        (
            {"palette": [{"kind": "red"}, {"kind": "blue", "widht": 1}], "price": 1},
            "palette.1.widht: there is no such key in kind 'blue'; did you mean 'width'? (keys: kind, names, width)",
        ),
    ],
)
def test_messages(tree: dict[str, Any], message: str) -> None:
    assert fault(tree) == message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.num_heads=3", "model: d_model (256) is not divisible by num_heads (3); "),
        (
            "model.d_modle=64",
            "model.d_modle: there is no such key in kind 'decoder'; did you mean 'd_model'? ",
        ),
        ("model.norm.epz=1", "model.norm.epz: there is no such key in kind 'rmsnorm'; did you mean 'eps'? "),
        # a key that is called as a kind
        ("model.decoder=1", "model.decoder: there is no such key in kind 'decoder'"),
        (
            "model.kind=decodr",
            "model.kind: there is no kind 'decodr'; did you mean 'decoder'? (kinds: decoder, encoder_decoder)",
        ),
        (
            "train.optimizer.beta=1",
            "train.optimizer.beta: there is no such key in kind 'adamw'; did you mean ",
        ),
        ("lr=1e-3", "lr: there is no such key; did you mean 'train.lr'? "),
        ("data.tokenizer=gpt3", "data.tokenizer.kind: there is no kind 'gpt3'; did you mean 'gpt2'? "),
        ("data.val_fraction=1", "data.val_fraction: must be more than 0 and less than 1, not 1"),
        ("train.batch_tokens=1000", "train.batch_tokens (1000) is not a multiple of the window length (256)"),
        ("train.steps=0", "train.steps: must be more than 0, not 0"),
    ],
)
def test_messages_about_a_run(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_tree(RunConfig, override(to_tree(RUN), [word]))
    assert str(raised.value).startswith(message)


def test_each_fault_has_a_line_that_begins_with_the_file() -> None:
    with pytest.raises(ConfigError) as raised:
        from_tree(Box, {"brush": {"hairs": 5}, "foo": 1}, where="box.toml")
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("box.toml: ") for line in lines)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("layernrm", "; did you mean 'layernorm'?"), ("zzz", ""), ("", "")],
)
def test_nearest(word: str, hint: str) -> None:
    assert nearest(word, ["rmsnorm", "layernorm"]) == hint


# Looking at classes


def test_members_are_the_kinds_of_a_union() -> None:
    assert members(Colour) == {"red": Red, "blue": Blue}
    assert members(Colour | None) == members(Colour)
    assert members(Brush) == {"": Brush}
    assert members(int | None) == members(tuple[Colour, ...]) == {}
    assert list(members(NormConfig)) == ["rmsnorm", "layernorm", "none"]


def test_key_paths_go_through_every_kind() -> None:
    colour = ["depth", "kind", "names", "width"]
    assert key_paths(Box) == [
        *(f"brush.colour.{key}" for key in colour),
        *(f"brush.{key}" for key in ("hairs", "is_new", "label", "mode")),
        "palette",
        "price",
    ]


# Merging


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"n": {"kind": "x", "p": 1}}, {"n": {"kind": "y", "q": 2}}, {"n": {"kind": "y", "q": 2}}),
        ({"n": {"kind": "x", "p": 1}}, {"n": {"kind": "x", "q": 2}}, {"n": {"kind": "x", "p": 1, "q": 2}}),
        ({"n": {"kind": "x", "p": 1}}, {"n": {"q": 2}}, {"n": {"kind": "x", "p": 1, "q": 2}}),
        ({"n": {"p": 1}}, {"n": {"kind": "x"}}, {"n": {"p": 1, "kind": "x"}}),
        ({"n": {"kind": "x", "p": 1}}, {"n": "y"}, {"n": {"kind": "y"}}),
        ({"n": {"kind": "x", "p": 1}}, {"n": "x"}, {"n": {"kind": "x", "p": 1}}),
        ({"n": "x"}, {"n": {"q": 2}}, {"n": {"kind": "x", "q": 2}}),
        ({"n": "x"}, {"n": {"kind": "y"}}, {"n": {"kind": "y"}}),
        ({"n": {"kind": "x"}}, {"n": 5}, {"n": 5}),
        ({"kind": "x", "p": 1}, {"kind": "y"}, {"kind": "y"}),
    ],
)
def test_merge(base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    assert merge(base, over) == merged
    assert (base, over) == before


def test_a_file_over_a_preset_with_another_kind_starts_from_that_kind(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[model]\nnum_layers = 2\n[model.norm]\nkind = "layernorm"\n[data]\ntokenizer = "gpt2"\n',
        encoding="utf-8",
    )
    preset = run_preset("quick")
    config = from_tree(RunConfig, merge(to_tree(preset), read_toml(file)))
    assert config.model.norm == members(NormConfig)["layernorm"]()
    assert config.model.num_layers == 2
    assert config.model.d_model == preset.model.d_model
    assert config.data.tokenizer.kind == "gpt2"
    assert config.train == preset.train


def test_a_fault_of_a_file_over_a_preset_with_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[train.schedule]\nkind = "constant"\nfinal_fraction = 0.5\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train\.schedule\.final_fraction: .* in kind 'constant'"):
        from_tree(RunConfig, merge(to_tree(run_preset("quick")), read_toml(file)))


# Overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ('"3"', "3"),
        ("'a = b'", "a = b"),
        ("[1, 2]", [1, 2]),
        ('["<pad>", "<mask>"]', ["<pad>", "<mask>"]),
        ('{kind = "x", p = 1}', {"kind": "x", "p": 1}),
        ("gpt2", "gpt2"),  # no TOML: a string
        ("data/stories.txt", "data/stories.txt"),
        ("a=b", "a=b"),
        ("007", "007"),
        ("2024-01-01", "2024-01-01"),  # a TOML date, which no config holds
        ("5\nother = 6", "5\nother = 6"),  # no second key by the back door
        (" 7 ", 7),
        ("é", "é"),
    ],
)
def test_a_value_is_toml_where_it_is_toml(text: str, value: Any) -> None:
    (found,) = override({}, [f"key={text}"]).values()
    assert found == value
    assert type(found) is type(value)


def test_overrides_reach_every_depth() -> None:
    box = changed("price=9", "brush.hairs=20", "brush.colour.depth=0.25", 'palette=[{kind="blue", width=1}]')
    assert (box.price, box.brush.hairs, box.palette) == (9, 20, (Blue(width=1),))
    assert box.brush.colour == Red(depth=0.25)


def test_later_overrides_win() -> None:
    assert changed("price=1", "price=2").price == 2
    assert changed("brush.colour.kind=blue", "brush.colour.kind=red").brush.colour == Red()


def test_an_override_leaves_the_tree_as_it_was() -> None:
    before = copy.deepcopy(TREE)
    for word in (
        "brush.colour=blue",
        "brush.colour.kind=blue",
        "brush.label=x",
        "brush.colour.depth=",
        "brush=",
    ):
        assert override(TREE, [word]) != before
        assert before == TREE


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("brush.label=", Brush(hairs=20, colour=Blue(width=9))),
        ("brush.hairs=", Brush(label="x", colour=Blue(width=9))),
        ("brush.colour.width=", Brush(label="x", hairs=20, colour=Blue())),
        ("brush.colour.kind=", Brush(label="x", hairs=20)),
        ("brush.colour=", Brush(label="x", hairs=20)),
        ("brush=", Brush()),
    ],
)
def test_an_empty_value_puts_the_default_back(word: str, expected: Brush) -> None:
    words = ["brush.label=x", "brush.hairs=20", "brush.colour.kind=blue", "brush.colour.width=9"]
    assert changed(*words, word).brush == expected


def test_an_empty_value_where_nothing_is_changes_nothing() -> None:
    assert override(TREE, ["brush.mode=", "nothing.here=", "brush.colour.width="]) == TREE


def test_another_kind_resets_its_table_and_keys_after_it_are_merged() -> None:
    box = changed("brush.label=x", "brush.colour.kind=blue", "brush.colour.width=7")
    assert box.brush == Brush(colour=Blue(width=7), label="x")
    assert "depth" not in override(TREE, ["brush.colour.kind=blue"])["brush"]["colour"]


@pytest.mark.parametrize("word", ["brush.colour.kind=red", "brush.colour=red", 'brush.colour={kind="red"}'])
def test_the_kind_that_is_there_changes_nothing(word: str) -> None:
    tree = override(TREE, ["brush.colour.depth=0.25"])
    assert override(tree, [word]) == tree


@pytest.mark.parametrize(
    "word", ["brush.colour=blue", "brush.colour.kind=blue", 'brush.colour={kind="blue"}']
)
def test_a_bare_string_is_a_kind(word: str) -> None:
    assert changed(word, "brush.colour.width=4").brush.colour == Blue(width=4)


def test_keys_below_a_bare_string_are_keys_of_that_kind() -> None:
    assert override({"tokenizer": "gpt2"}, ["tokenizer.max_ranks=300"]) == {
        "tokenizer": {"kind": "gpt2", "max_ranks": 300}
    }


def test_a_kind_added_to_a_table_without_one_keeps_the_table() -> None:
    assert override({"model": {"d_model": 64}}, ["model.kind=decoder"]) == {
        "model": {"d_model": 64, "kind": "decoder"}
    }


@pytest.mark.parametrize(
    "word", ["brush.colour.kind=blue", "brush.colour=blue", 'brush.colour={kind="blue", width=2}']
)
def test_a_field_written_before_another_kind_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as raised:
        changed("price=3", "brush.colour.depth=0.25", word)
    message = str(raised.value)
    assert message.startswith(f"{word}: resets brush.colour to the defaults of ")
    assert message.endswith(f"and would drop brush.colour.depth written before it; write {word} first")


def test_a_field_that_was_put_back_before_another_kind_is_not_lost() -> None:
    box = changed("brush.colour.depth=0.25", "brush.colour.depth=", "brush.colour.kind=blue")
    assert box.brush.colour == Blue()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("price.cents=3", "price.cents=3: price is a single value (2.5) and has no keys below it"),
        ("brush.is_new.x.y=3", "brush.is_new.x.y=3: brush.is_new is a single value (True) and has no keys"),
        ("palette.0=3", "palette.0=3: palette is a single value ([]) and has no keys"),
        ("price", "'price' is not an override; write key.path=value, e.g. train.lr=3e-4"),
        ("=3", "'=3' is not an override"),
        ("brush..label=3", "'brush..label=3' is not an override"),
    ],
)
def test_what_is_no_override(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        override(TREE, [word])
    assert str(raised.value).startswith(message)


def test_a_key_below_a_string_that_is_no_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"brush\.label: must be a string .*, not a table"):
        changed("brush.label.x=1")
