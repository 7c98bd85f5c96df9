"""The classic ways to choose the next id by name, each with the settings it needs and values that suit most models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pellucid.errors import ConfigError


@dataclass(frozen=True)
class Strategy:
    """What a way of choosing sets in a `SamplingConfig`; everything else stays as it is by default."""

    settings: Mapping[str, float]
    description: str


STRATEGIES: Mapping[str, Strategy] = {
    "greedy": Strategy({"temperature": 0.0}, "the likeliest id, always"),
    "sampling": Strategy({}, "a draw from the model's own distribution, unchanged"),
    "temperature": Strategy({"temperature": 0.7}, "a draw after logits are divided by the temperature"),
    "top_k": Strategy({"top_k": 50}, "a draw from the k likeliest ids"),
    "top_p": Strategy(
        {"top_p": 0.95}, "a draw from the fewest ids that together have probability p (nucleus)"
    ),
    "top_k_top_p": Strategy(
        {"top_k": 50, "top_p": 0.95}, "a draw from the k likeliest ids, then of those by p"
    ),
    "min_p": Strategy({"min_p": 0.05}, "a draw from the ids at least p times as likely as the likeliest"),
    "typical": Strategy({"typical_p": 0.9}, "a draw from the ids about as surprising as expected"),
    "repetition_penalty": Strategy(
        {"repetition_penalty": 1.2}, "a draw in which ids that the text already has are less likely"
    ),
}
"""A preset is chosen for what it writes; a strategy shows what one setting does."""


def listing() -> str:
    """The strategies as `--help` shows them."""
    width = max(map(len, STRATEGIES))
    lines = [f"  {name:<{width}} {each.description}" for name, each in STRATEGIES.items()]
    return "\n".join(["Strategies:", *lines])


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises ConfigError, with the nearest name, when there is none."""
    if name not in STRATEGIES:
        from pellucid.config import nearest  # with pydantic, which the table itself can do without

        raise ConfigError(
            f"there is no sampling strategy {name!r}{nearest(name, STRATEGIES)} (strategies: {', '.join(STRATEGIES)})"
        )
    return STRATEGIES[name]
