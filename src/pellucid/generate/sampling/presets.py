"""Named settings. The table is what `--help` lists; a config is built only when its name is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pellucid.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.generate.sampling.config import SamplingConfig


@dataclass(frozen=True)
class Preset:
    """What a name is for, and the settings that it stands for."""

    summary: str
    settings: Mapping[str, float]


TABLE: dict[str, Preset] = {
    # Where ids are characters or bytes, a penalty of repetition forbids spelling: only `varied` has one.
    "greedy": Preset("always the likeliest id", {"temperature": 0.0}),
    "precise": Preset("few surprises", {"temperature": 0.5, "top_p": 0.9}),
    "balanced": Preset("neither dull nor wild", {"temperature": 0.8, "top_k": 50, "top_p": 0.95}),
    "varied": Preset(
        "as balanced, but repeats words less; not for characters or bytes",
        {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.15},
    ),
    "creative": Preset("nearly the model's own distribution", {"temperature": 1.0, "top_p": 0.98}),
    "typical": Preset("as surprising as text usually is", {"typical_p": 0.9}),
    "min-p": Preset("bold, but far-fetched nowhere", {"temperature": 1.3, "min_p": 0.08}),
    "plain": Preset("the model's own distribution, unchanged", {}),
}


class _Configs(Mapping[str, "SamplingConfig"]):
    """The configs of the table, each built when it is first asked for."""

    def __getitem__(self, name: str) -> SamplingConfig:
        return _build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


PRESETS: Mapping[str, SamplingConfig] = _Configs()
"""Name → settings."""


def listing() -> str:
    """The table as `--help` shows it."""
    return "\n".join(["Presets:", *(f"  {name:<9} {preset.summary}" for name, preset in TABLE.items())])


def preset(name: str) -> SamplingConfig:
    """The settings of that name. Raises ConfigError, with the nearest name, when there are none."""
    if name not in TABLE:
        from pellucid.config import nearest  # with pydantic, which the table itself can do without

        raise ConfigError(
            f"there is no sampling preset {name!r}{nearest(name, TABLE)} (presets: {', '.join(TABLE)})"
        )
    return PRESETS[name]


@cache
def _build(name: str) -> SamplingConfig:
    from pellucid.generate.sampling.config import SamplingConfig

    return SamplingConfig.model_validate(TABLE[name].settings)
