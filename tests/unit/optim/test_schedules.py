import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.optim import ConstantConfig, CosineConfig, InverseSqrtConfig, LinearConfig, WSDConfig


@pytest.mark.parametrize(
    ("progress", "cosine", "linear"),
    [
        (0.0, 1.0, 1.0),
        (1 / 3, 0.2 + 0.8 * 0.75, 0.2 + 0.8 * 2 / 3),  # cos 60° = 1/2
        (0.5, 0.6, 0.6),
        (2 / 3, 0.2 + 0.8 * 0.25, 0.2 + 0.8 / 3),
        (1.0, 0.2, 0.2),
    ],
)
def test_shapes(progress: float, cosine: float, linear: float) -> None:
    settings = {"warmup_steps": 10, "final_fraction": 0.2}
    assert CosineConfig(**settings).factor(500, progress) == pytest.approx(cosine)
    assert LinearConfig(**settings).factor(500, progress) == pytest.approx(linear)
    assert ConstantConfig(warmup_steps=10).factor(500, progress) == 1


def test_warmup_multiplies_the_decay() -> None:
    schedule = CosineConfig(warmup_steps=4, final_fraction=0)
    decay = (1 + math.cos(math.pi * 0.1)) / 2
    assert schedule.factor(0, 0.1) == pytest.approx(decay / 4)
    assert schedule.factor(2, 0.1) == pytest.approx(decay * 3 / 4)
    assert schedule.factor(3, 0.1) == schedule.factor(9, 0.1) == pytest.approx(decay)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("warmup_steps", -1, "at least 0"),
        ("final_fraction", -0.1, "at least 0 and at most 1"),
        ("final_fraction", 1.5, "at least 0 and at most 1"),
    ],
)
def test_a_setting_out_of_range(key: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: must be {allowed}, not {value}"):
        from_tree(LinearConfig, {key: value})


# Warmup, stable, decay --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "linear", "root"),
    [(0.0, 1, 1), (0.6, 1, 1), (0.7, 0.8, 0.6), (0.9, 0.4, 1 - 0.8 * math.sqrt(0.75)), (1.0, 0.2, 0.2)],
)
def test_wsd_stays_and_then_falls(progress: float, linear: float, root: float) -> None:
    settings = {"warmup_steps": 10, "decay_fraction": 0.4, "final_fraction": 0.2}
    assert WSDConfig(**settings, cooldown="linear").factor(500, progress) == pytest.approx(linear)
    assert WSDConfig(**settings, cooldown="1-sqrt").factor(500, progress) == pytest.approx(root)


@given(st.floats(0.01, 1), st.floats(0, 1), st.integers(1, 10**6), st.integers(2, 10))
def test_before_its_cooldown_wsd_does_not_know_how_long_the_run_is(fraction, share, steps, longer) -> None:
    schedule = WSDConfig(warmup_steps=10, decay_fraction=fraction)
    step = int(share * steps * (1 - fraction))
    assert schedule.factor(step, step / steps) == schedule.factor(step, step / (longer * steps))


# Inverse square root ----------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.integers(0, 10**6))
def test_inverse_sqrt_is_the_transformers_own(warmup: int, step: int) -> None:
    """Peak · factor = d_model^-0.5 · min(n^-0.5, n · warmup^-1.5) at a peak of (d_model · warmup)^-0.5."""
    n, d_model = step + 1, 512
    expected = d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)
    factor = InverseSqrtConfig(warmup_steps=warmup).factor(step, 0.5)
    assert (d_model * warmup) ** -0.5 * factor == pytest.approx(expected)


def test_inverse_sqrt_has_a_floor_but_not_in_warmup() -> None:
    schedule = InverseSqrtConfig(warmup_steps=100, min_fraction=0.25)
    assert schedule.factor(0, 0.0) == pytest.approx(0.01)
    assert schedule.factor(899, 0.5) == pytest.approx(1 / 3)
    assert schedule.factor(10_000, 0.9) == 0.25


# Lengths of the warmup --------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "steps"), [(0, 0), (1, 1), (1000, 1), (1001, 2), (5000, 5)])
def test_a_warmup_in_tokens_is_whole_steps(tokens: int, steps: int) -> None:
    resolved = CosineConfig(warmup_tokens=tokens, final_fraction=0.3).in_steps(1000)
    assert resolved == CosineConfig(warmup_steps=steps, final_fraction=0.3)


def test_without_a_length_the_warmup_is_a_hundred_steps() -> None:
    assert ConstantConfig().in_steps(1000) == ConstantConfig(warmup_steps=100)
    assert ConstantConfig().factor(49, 0.1) == ConstantConfig(warmup_steps=100).factor(49, 0.1) == 0.5
    assert ConstantConfig(warmup_steps=7).in_steps(1000) == ConstantConfig(warmup_steps=7)


def test_two_lengths_of_the_warmup_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps and warmup_tokens both .* give one of them"):
        from_tree(CosineConfig, {"warmup_steps": 5, "warmup_tokens": 5})


@pytest.mark.parametrize("config", [CosineConfig, InverseSqrtConfig])
def test_tokens_that_nobody_has_turned_into_steps_are_an_error(config) -> None:
    with pytest.raises(ValueError, match="call in_steps first"):
        config(warmup_tokens=5).factor(0, 0.0)
