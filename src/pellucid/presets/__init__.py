"""Named configs. The tables below are what `--help` lists; a config is built only when its name is used.

RUNS are recipes of their own. MODELS are architectures, and train under their own names too, by the recipe that
`runs/by_size.py` derives from a model's size.
"""

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
    "encdec-quick": Preset(
        "minutes on a laptop CPU: an encoder-decoder that fills in gaps in Shakespeare",
        "runs.encdec_quick:encdec_quick",
    ),
    "pairs-quick": Preset(
        "a minute or two: an encoder-decoder that learns your pairs; give data.path",
        "runs.pairs_quick:pairs_quick",
    ),
    "tinystories-22m": Preset(
        "22M parameters for TinyStories-like text; give data.path",
        "runs.tinystories:tinystories_22m",
        "quick",
    ),
    "tinystories": Preset(
        "22M parameters on TinyStories, fetched from the hub: 1 GB", "runs.tinystories:tinystories", "quick"
    ),
    "edu-fineweb": Preset(
        "31M parameters on FineWeb-Edu, streamed from the hub: 100M tokens",
        "runs.edu_fineweb:edu_fineweb",
        "edu-fineweb-quick",
    ),
    "edu-fineweb-quick": Preset(
        "14M parameters on FineWeb-Edu, streamed from the hub: 10M tokens",
        "runs.edu_fineweb:edu_fineweb_quick",
        "debug",
    ),
    "sota-16m": Preset("16M parameters, GPT-2 vocabulary, 1,000 steps", "runs.sota:sota_16m", "quick"),
    "sota-125m": Preset(
        "the full mode: 124M parameters, GPT-2 vocabulary, 100K steps",
        "runs.sota:sota_125m",
        "sota-16m",
    ),
    "sota-250m": Preset("254M parameters, GPT-2 vocabulary", "runs.sota:sota_250m", "sota-16m"),
    "sota-16m-classic": Preset(
        "16M parameters by the classic recipe, beside sota-16m", "runs.sota:sota_16m_classic", "quick"
    ),
    "sota-125m-classic": Preset(
        "124M parameters by the classic recipe: dropout, smoothed labels, 100K steps",
        "runs.sota:sota_125m_classic",
        "sota-16m-classic",
    ),
    "translation-base": Preset(
        "138M parameters, encoder-decoder, for pairs of texts; give data.path",
        "runs.translation:translation_base",
        "pairs-quick",
    ),
}

MODELS: dict[str, Preset] = {
    "gpt2-small": Preset("124.4M: d 768, 12 layers", "models.gpt2:gpt2_small", "quick"),
    "gpt2-medium": Preset("354.8M: d 1024, 24 layers", "models.gpt2:gpt2_medium", "quick"),
    "gpt2-large": Preset("774.0M: d 1280, 36 layers", "models.gpt2:gpt2_large", "quick"),
    "gpt2-xl": Preset("1557.6M: d 1600, 48 layers", "models.gpt2:gpt2_xl", "quick"),
    "edu-4l": Preset("7.3M: d 128, 4 layers, the classic GPT in small", "models.edu:edu_4l", "quick"),
    "edu-6l": Preset("17.7M: d 256, 6 layers, the classic GPT in small", "models.edu:edu_6l", "quick"),
    "llama-tiny": Preset("0.8M: d 128, 4 layers, grouped queries, bytes", "models.llama:llama_tiny", "quick"),
    "sota-16m": Preset("16.1M: d 256, 4 layers, GPT-2 vocabulary", "models.sota:sota_16m", "quick"),
    "sota-125m": Preset("123.6M: d 768, 12 layers, GPT-2 vocabulary", "models.sota:sota_125m", "quick"),
    "sota-250m": Preset("253.9M: d 1024, 16 layers, GPT-2 vocabulary", "models.sota:sota_250m", "quick"),
    "tinystories-1m": Preset(
        "1.8M: d 64, 8 layers, 21,504 ids", "models.tinystories:tinystories_1m", "quick"
    ),
    "tinystories-8m": Preset(
        "11.9M: d 256, 8 layers, 21,504 ids", "models.tinystories:tinystories_8m", "quick"
    ),
    "tinystories-22m": Preset(
        "22.4M: d 384, 8 layers, 21,504 ids", "models.tinystories:tinystories_22m", "quick"
    ),
    "tinystories-33m": Preset(
        "44.8M: d 768, 4 layers, 21,504 ids", "models.tinystories:tinystories_33m", "quick"
    ),
    "smollm2-135m": Preset(
        "134.5M: d 576, 30 layers, grouped queries", "models.smollm2:smollm2_135m", "quick"
    ),
    "encdec-small": Preset(
        "137.8M: d 768, 6 + 6 layers, encoder-decoder", "models.encdec:encdec_small", "encdec-quick"
    ),
    "encdec-medium": Preset(
        "339.1M: d 1024, 8 + 8 layers, encoder-decoder", "models.encdec:encdec_medium", "encdec-quick"
    ),
    "encdec-large": Preset(
        "747.9M: d 1280, 12 + 12 layers, encoder-decoder", "models.encdec:encdec_large", "encdec-quick"
    ),
    "t5-small": Preset("77.0M: d 512, 8 + 8 layers, T5 v1.1", "models.t5:t5_small", "encdec-quick"),
}


def listing() -> str:
    """Both tables as `--help` shows them; a model that has a recipe of its own stands among the runs alone."""
    models = {name: preset for name, preset in MODELS.items() if name not in RUNS}
    return "\n".join(
        [
            "Presets:",
            *(f"  {name:<17} {preset.summary}" for name, preset in RUNS.items()),
            "",
            "Models, each trained by a recipe that follows from its size; give data.path:",
            *(f"  {name:<17} {preset.summary}" for name, preset in models.items()),
        ]
    )


def run_preset(name: str, *, quick: bool = False) -> RunConfig:
    """The run config of a name, or of its small sibling. Raises ConfigError with the nearest name."""
    preset = _find(name, MODELS | RUNS, "run")
    if quick:
        if preset.quick is None:
            raise ConfigError(f"--quick: preset {name!r} has no smaller sibling")
        name = preset.quick
    if name in RUNS:
        return _call(RUNS[name])
    from pellucid.presets.runs.by_size import by_size

    return by_size(name, model_preset(name))


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
