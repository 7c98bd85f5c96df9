"""Laws of configs: TOML keeps them, merging and overriding twice is merging and overriding once."""

import copy
import tomllib
from typing import Annotated, Any, Literal

import tomli_w
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field

from pellucid.config import Config, from_tree, merge, override, to_toml, to_tree
from pellucid.errors import ConfigError


class Leaf(Config):
    kind: Literal["leaf"] = "leaf"
    size: float = 1.0
    veins: int | None = None


class Fruit(Config):
    kind: Literal["fruit"] = "fruit"
    name: str = "apple"
    seeds: tuple[int, ...] = ()


class Twig(Config):
    end: Annotated[Leaf | Fruit, Field(discriminator="kind")] = Leaf()
    is_dry: bool = False
    weight: float | None = None


class Branch(Config):
    left: Twig = Twig()
    right: Twig = Twig()
    label: str = ""


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ENDS = st.builds(Leaf, size=FLOATS, veins=st.none() | st.integers(-5, 5)) | st.builds(
    Fruit, name=TEXT, seeds=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple)
)
TWIGS = st.builds(Twig, end=ENDS, is_dry=st.booleans(), weight=st.none() | FLOATS)
BRANCHES = st.builds(Branch, left=TWIGS, right=TWIGS, label=TEXT)

KEYS = st.sampled_from(["a", "b", "kind"])
TREES = st.dictionaries(KEYS.filter(lambda key: key != "kind"), st.integers(0, 3)) | st.recursive(
    st.dictionaries(KEYS, st.sampled_from(["x", "y"]), max_size=3),
    lambda trees: st.dictionaries(KEYS, st.sampled_from(["x", "y"]) | st.integers(0, 3) | trees, max_size=3),
    max_leaves=6,
)
WRITES = [
    *(f"{side}.end{word}" for side in ("left", "right") for word in ("=leaf", "=fruit", ".kind=leaf")),
    *("left.end.size=2.5", "left.end.name=pear", "left.end.seeds=[1, 2]", "right.end.veins=3"),
    *("left.is_dry=true", "left.weight=3", "label=7 apples", 'label="7"'),
]
RESETS = ["left.end=", "right.end.kind=", "left.weight=", "right=", "left.end.size="]


@given(BRANCHES)
def test_toml_keeps_a_config(branch: Branch) -> None:
    assert from_tree(Branch, tomllib.loads(to_toml(branch))) == branch


@given(BRANCHES, BRANCHES)
def test_a_whole_config_laid_over_another_gives_the_upper_one_but_for_what_toml_cannot_say(
    base: Branch, over: Branch
) -> None:
    merged = from_tree(Branch, merge(to_tree(base), to_tree(over)))
    for side in ("left", "right"):
        lower, upper, twig = getattr(base, side), getattr(over, side), getattr(merged, side)
        assert twig.is_dry == upper.is_dry
        assert twig.weight == (lower.weight if upper.weight is None else upper.weight)
        if type(lower.end) is not type(upper.end) or isinstance(upper.end, Fruit):
            assert twig.end == upper.end
        else:
            assert twig.end.size == upper.end.size
            assert twig.end.veins == (lower.end.veins if upper.end.veins is None else upper.end.veins)
    assert merged.label == over.label


@given(TREES, TREES)
def test_merging_twice_is_merging_once(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    once = merge(base, over)
    assert merge(once, over) == once
    assert (base, over) == before


@given(TREES)
def test_nothing_laid_over_a_tree_and_a_tree_laid_over_nothing_are_the_tree(tree: dict[str, Any]) -> None:
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(BRANCHES, st.lists(st.sampled_from(WRITES), max_size=6))
def test_overriding_twice_is_overriding_once(branch: Branch, words: list[str]) -> None:
    tree = to_tree(branch)
    before = copy.deepcopy(tree)
    try:
        once = override(tree, words)
    except ConfigError:
        assume(False)
    finally:
        assert tree == before
    assert override(once, words) == once


@given(BRANCHES, st.lists(st.sampled_from(WRITES + RESETS), max_size=6))
def test_overriding_word_by_word_is_overriding_at_once(branch: Branch, words: list[str]) -> None:
    try:
        at_once = override(to_tree(branch), words)
    except ConfigError:
        assume(False)
    tree = to_tree(branch)
    for word in words:
        tree = override(tree, [word])
    assert tree == at_once


@given(
    st.recursive(
        st.integers() | FLOATS | st.booleans() | TEXT, lambda v: st.lists(v, max_size=3), max_leaves=4
    )
)
def test_any_toml_value_can_be_given_as_a_word(value: Any) -> None:
    assume(not isinstance(value, int) or abs(value) < 2**63)
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")
    found = override({}, [f"a.b={text}"])["a"]["b"]
    assert found == value
    assert type(found) is type(value)
