"""Words into combinations, and combinations into names of directories."""

import pytest

from pellucid.errors import ConfigError
from pellucid.experiments.ablation.vary import cell_names, combinations, parse_vary


def test_values_stand_between_commas_outside_brackets_and_quotes():
    vary = parse_vary(
        ["model.norm.kind=rmsnorm, layernorm", 'data.path="a,b",c', "x=[1, 2],[3],{a=1,b=2}", "y=,0.1"]
    )
    assert vary == {
        "model.norm.kind": ("rmsnorm", "layernorm"),
        "data.path": ('"a,b"', "c"),
        "x": ("[1, 2]", "[3]", "{a=1,b=2}"),
        "y": ("", "0.1"),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing varies"),
        (["train.lr"], "at least two values"),
        (["train.lr=1e-3"], "at least two values"),
        (["=1,2"], "give a key"),
        (["train.lr=1,2", "train.lr=3,4"], "given twice"),
        (["train.lr=1,2,1"], "'1' is there twice"),
    ],
)
def test_words_that_name_no_comparison_are_refused(words: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        parse_vary(words)


def test_all_combinations_with_the_first_values_first():
    cells = combinations({"a.kind": ("x", "y"), "b": ("1", "2", "3")})
    assert len(cells) == 6
    assert cells[0] == {"a.kind": "x", "b": "1"}
    assert cells[1] == {"a.kind": "x", "b": "2"}


def test_names_can_be_directories_and_are_told_apart():
    cells = combinations({"model.norm.kind": ("rmsnorm", "layernorm"), "train.lr": ("1e-3", "")})
    assert cell_names(cells) == [
        "rmsnorm-lr-1e-3",
        "rmsnorm-lr-none",
        "layernorm-lr-1e-3",
        "layernorm-lr-none",
    ]
    assert cell_names([{"preset": "quick"}, {"preset": "recipes/mine.toml"}]) == ["quick", "mine"]
    alike = cell_names([{"x": "a/b"}, {"x": "a:b"}])
    assert len(set(alike)) == 2
    assert all("/" not in name and ":" not in name for name in alike)
