import math

import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree, to_tree
from pellucid.errors import ConfigError
from pellucid.model.positions import (
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    RotaryPosition,
    RotaryPositionConfig,
    YarnScaling,
)

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def score(rope: RotaryPosition, q: Tensor, k: Tensor, at: int, seen: int) -> float:
    turned = [
        rope.rotate(x.view(1, 1, 1, -1), rope.angles(torch.tensor([p]))) for x, p in ((q, at), (k, seen))
    ]
    return float((turned[0] * turned[1]).sum())


@pytest.mark.parametrize(
    "settings",
    [
        {"fraction": 0.5},
        {"scaling": NTKScaling(factor=3)},
        {"scaling": YarnScaling(factor=3, original_max_seq_len=30)},
    ],
)
def test_scores_depend_only_on_the_distance(settings: dict) -> None:
    rope, q, k = RotaryPosition(8, **settings), draw(8), draw(8, seed=1)
    assert score(rope, q, k, 9, 4) == pytest.approx(score(rope, q, k, 105, 100), abs=1e-12)
    assert abs(score(rope, q, k, 9, 4) - score(rope, q, k, 9, 5)) > 1e-3


def test_a_fraction_turns_the_first_features_as_a_head_of_their_own() -> None:
    rope, x, positions = RotaryPosition(12, fraction=1 / 3), draw(2, 3, 5, 12), torch.arange(5)
    cos, sin = rope.angles(positions)
    assert cos.shape == sin.shape == (5, 4)
    turned, small = rope.rotate(x, (cos, sin)), RotaryPosition(4)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[..., :4], small.rotate(x[..., :4], small.angles(positions)))


def test_angles_are_exact_at_large_positions() -> None:
    cos, _ = RotaryPosition(2).angles(torch.tensor([10_000_001]))
    assert cos[0, 0].item() == pytest.approx(math.cos(10_000_001), abs=1e-12)


def test_linear_scaling_reads_each_place_as_an_earlier_one() -> None:
    squeezed = RotaryPosition(8, scaling=LinearScaling(factor=4)).angles(torch.tensor([40]))
    torch.testing.assert_close(squeezed, RotaryPosition(8).angles(torch.tensor([10])), rtol=0, atol=1e-14)


def test_ntk_scaling_is_a_larger_base() -> None:
    ours = RotaryPosition(8, theta=100.0, scaling=NTKScaling(factor=4)).frequencies(CPU)
    larger = RotaryPosition(8, theta=100.0 * 4 ** (8 / 6)).frequencies(CPU)
    torch.testing.assert_close(ours, larger, rtol=1e-14, atol=0)
    plain = RotaryPosition(8, theta=100.0).frequencies(CPU)
    torch.testing.assert_close((plain / ours)[[0, -1]], torch.tensor([1.0, 4.0]).double())


@pytest.mark.parametrize(
    "scaling", [YarnScaling(factor=8, original_max_seq_len=1024), Llama3Scaling(original_max_seq_len=1024)]
)
def test_fast_pairs_keep_their_frequency_and_slow_ones_are_divided_by_factor(scaling) -> None:
    plain = RotaryPosition(64).frequencies(CPU)
    slowed = plain / RotaryPosition(64, scaling=scaling).frequencies(CPU)
    turns = 1024 * plain / (2 * math.pi)
    torch.testing.assert_close(slowed[turns > 40], torch.ones_like(slowed[turns > 40]))
    torch.testing.assert_close(slowed[turns < 0.7], torch.full_like(slowed[turns < 0.7], 8.0))
    assert (slowed.diff() >= -1e-12).all()
    assert ((slowed > 1.01) & (slowed < 7.99)).sum() >= 2, "there are pairs on the way between"


def test_yarn_keeps_every_pair_of_a_length_in_which_all_turn_often() -> None:
    scaling = YarnScaling(factor=8, original_max_seq_len=10**9)
    assert torch.equal(
        RotaryPosition(8, theta=10.0, scaling=scaling).frequencies(CPU),
        RotaryPosition(8, theta=10.0).frequencies(CPU),
    )


@pytest.mark.parametrize(("given", "magnitude"), [(None, 0.1 * math.log(8) + 1), (1.25, 1.25)])
def test_yarn_sharpens_scores_by_the_square_of_its_attention_factor(given, magnitude: float) -> None:
    scaling = YarnScaling(factor=8, original_max_seq_len=64, attention_factor=given)
    rope, x = RotaryPosition(8, scaling=scaling), draw(1, 1, 1, 8)
    turned = rope.rotate(x, rope.angles(torch.tensor([5])))
    assert (turned.norm() / x.norm()).item() == pytest.approx(magnitude, rel=1e-12)


def test_yarn_leaves_features_that_do_not_turn_as_they_are() -> None:
    scaling = YarnScaling(factor=8, original_max_seq_len=64)
    rope, x = RotaryPosition(16, fraction=0.5, scaling=scaling), draw(1, 1, 1, 16)
    assert torch.equal(rope.rotate(x, rope.angles(torch.tensor([5])))[..., 8:], x[..., 8:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_dim": 7}, r"fraction \(1\) · head_dim \(7\) must be an even number from 2 on, not 7;"),
        ({"head_dim": 12, "fraction": 0.25}, r"fraction \(0.25\) · head_dim \(12\) .* not 3;"),
        ({"head_dim": 10, "fraction": 0.25}, r"fraction \(0.25\) · head_dim \(10\) .* not 2.5;"),
        ({"head_dim": 10, "fraction": 0.01}, r"fraction \(0.01\) · head_dim \(10\) .* not 0.1;"),
        (
            {"head_dim": 8, "fraction": 0.25, "scaling": NTKScaling(factor=2)},
            r"scaling.kind 'ntk' .* needs at least 4 rotated features, not 2;",
        ),
    ],
)
def test_features_that_cannot_turn_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RotaryPosition(**settings)


def test_a_fraction_that_is_no_binary_number_may_still_be_exact() -> None:
    """0.28 · 50 is 14.000000000000002 in floating point."""
    assert 50 * 0.28 != 14
    assert RotaryPosition(50, fraction=0.28).rotated == 14


YARN = {"kind": "yarn", "factor": 4, "original_max_seq_len": 1024}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"theta": 1}, "theta: must be more than 1, not 1"),
        ({"fraction": 0}, "fraction: must be more than 0 and at most 1, not 0"),
        ({"fraction": 1.5}, "fraction: must be more than 0 and at most 1, not 1.5"),
        ({"scaling": {"kind": "linear"}}, "scaling.factor: a value is needed"),
        ({"scaling": {"kind": "ntk", "factor": 0.5}}, "scaling.factor: must be at least 1, not 0.5"),
        (
            {"scaling": {"kind": "yarn", "factor": 4}},
            "scaling.original_max_seq_len: a value is needed",
        ),
        (
            {"scaling": YARN | {"beta_fast": 1}},
            "scaling: beta_fast (1) must be more than beta_slow (1): pairs with more turns than beta_fast stay, "
            "those with fewer than beta_slow are slowed",
        ),
        (
            {"scaling": YARN | {"original_max_seq_len": 6}},
            "scaling: original_max_seq_len (6) is so short that no pair of features turns beta_slow (1) times in "
            "it; it must be more than 2π · beta_slow",
        ),
        (
            {"scaling": {"kind": "llama3", "low_frequency_factor": 4}},
            "scaling: high_frequency_factor (4) must be more than low_frequency_factor (4): pairs with more turns "
            "than it stay, those with fewer are slowed",
        ),
        (
            {"scaling": {"kind": "yarm"}},
            "scaling.kind: there is no kind 'yarm'; did you mean 'yarn'? (kinds: none, linear, ntk, yarn, llama3)",
        ),
    ],
)
def test_an_impossible_config_is_one_clear_line(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(RotaryPositionConfig, tree)
    assert str(caught.value) == message


@pytest.mark.parametrize("scaling", [{"kind": "linear", "factor": 2.0}, YARN, {"kind": "llama3"}])
def test_config_round_trip_with_a_scaling(scaling: dict) -> None:
    config = from_tree(RotaryPositionConfig, {"fraction": 0.5, "scaling": scaling})
    assert from_tree(RotaryPositionConfig, to_tree(config)) == config
