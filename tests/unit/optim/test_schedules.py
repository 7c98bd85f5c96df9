import math

import pytest

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.optim import ConstantConfig, CosineConfig, LinearConfig


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
