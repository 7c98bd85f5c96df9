"""Named configs. The table below is what `--help` lists; a config is built only when its name is used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pellucid.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.model import ModelConfig
    from pellucid.train.config import RunConfig


@dataclass(frozen=True)
class Preset:
    """A name's meaning: what it is for, the function that builds it, and its small sibling."""

    summary: str
    function: str
    quick: str | None = None
    """The run preset that --quick takes instead."""


RUNS: dict[str, Preset] = {
    "debug": Preset("seconds: does everything work?", "runs.debug:debug"),
    "quick": Preset(
        "minutes on a laptop CPU: a byte-level model that writes Shakespeare", "runs.quick:quick", "debug"
    ),
    "shakespeare-char": Preset(
        "a minute or two: the character-level reference task",
        "runs.shakespeare_char:shakespeare_char",
        "debug",
    ),
    "tinystories-22m": Preset(
        "22M parameters for TinyStories-like text; give data.path",
        "runs.tinystories:tinystories_22m",
        "quick",
    ),
    "sota-16m": Preset("16M parameters, GPT-2 vocabulary, 1,000 steps", "runs.sota:sota_16m", "quick"),
    "sota-125m": Preset(
        "the full mode: 124M parameters, GPT-2 vocabulary", "runs.sota:sota_125m", "sota-16m"
    ),
    "sota-250m": Preset("254M parameters, GPT-2 vocabulary", "runs.sota:sota_250m", "sota-16m"),
}

MODELS: dict[str, Preset] = {
    "tinystories-22m": Preset("22.4M: d 384, 8 layers, 21,504 ids", "models.tinystories:tinystories_22m"),
    "sota-16m": Preset("16.1M: d 256, 4 layers, GPT-2 vocabulary", "models.sota:sota_16m"),
    "sota-125m": Preset("123.6M: d 768, 12 layers, GPT-2 vocabulary", "models.sota:sota_125m"),
    "sota-250m": Preset("253.9M: d 1024, 16 layers, GPT-2 vocabulary", "models.sota:sota_250m"),
}


def run_preset(name: str, *, quick: bool = False) -> RunConfig:
    """The run config of a name, or of its small sibling. Raises ConfigError with the nearest name."""
    preset = _find(name, RUNS, "run")
    if quick:
        if preset.quick is None:
            raise ConfigError(f"--quick: preset {name!r} has no smaller sibling")
        preset = RUNS[preset.quick]
    return _call(preset)


def model_preset(name: str) -> ModelConfig:
    """The model config of a name. Raises ConfigError with the nearest name."""
    return _call(_find(name, MODELS, "model"))


def _find(name: str, table: dict[str, Preset], what: str) -> Preset:
    if name not in table:
        from pellucid.config import nearest  # with pydantic, which the table itself can do without

        raise ConfigError(
            f"there is no {what} preset {name!r}{nearest(name, table)} (presets: {', '.join(table)})"
        )
    return table[name]


def _call(preset: Preset) -> Any:
    module, _, function = preset.function.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), function)()
