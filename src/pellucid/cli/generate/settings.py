"""Settings: what was asked for, by options or as a dialogue goes on, as a SamplingConfig and a BeamConfig."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pellucid.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.generate.beam import BeamConfig
    from pellucid.generate.sampling import SamplingConfig
    from pellucid.tokenizers import Tokenizer

DEFAULT_PRESET = "balanced"

NOT_OF_CHOICE = {
    "logit_bias",
    "banned",
    "forced",
    "force_end",
    "min_new_tokens",
    "max_new_tokens",
    "stop",
    "seed",
}
"""What says how long a text is and what may not be in it; it stays when another preset says how ids are chosen."""

DRAWN = (
    "preset",
    "strategy",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "epsilon_cutoff",
    "eta_cutoff",
    "seed",
)
"""What says how ids are drawn, which a search with beams does not do."""


@dataclass(frozen=True)
class Settings:
    """A preset or strategy, and what was laid over it."""

    name: str
    """Such as `preset balanced`."""
    base: Mapping[str, Any]
    over: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of SamplingConfig."""

    @property
    def sampling(self) -> SamplingConfig:
        """Raises ConfigError, which names each field that is out of range."""
        from pellucid.config import from_tree
        from pellucid.generate.sampling import SamplingConfig

        return from_tree(SamplingConfig, {**self.base, **self.over})

    def with_preset(self, name: str) -> Settings:
        """Another way of choosing ids. Raises ConfigError for an unknown name."""
        return self._with_base(preset_settings(name))

    def with_strategy(self, name: str) -> Settings:
        return self._with_base(strategy_settings(name))

    def with_bans(self, texts: Sequence[str], tokenizer: Tokenizer) -> Settings:
        """The same, which never writes these texts. Raises ConfigError for an empty one."""
        return replace(self, over={**self.over, "banned": banned_ids(texts, tokenizer)}) if texts else self

    def with_value(self, name: str, value: str, tokenizer: Tokenizer) -> Settings:
        """One setting changed, as it was typed; an empty value puts back what the preset says.

        `ban` and `stop` take texts, quoted where they have blanks. Raises ConfigError for an unknown name, and for a
        value that is out of range or does not go with the others.
        """
        from pellucid.config import override

        key = {"ban": "banned"}.get(name, name.replace("-", "_"))
        if key == "banned" and value:
            changed = self.with_bans(_words(value), tokenizer)
        elif key == "stop" and value:
            changed = replace(self, over={**self.over, key: _words(value)})
        else:
            changed = replace(self, over=override(self.over, [f"{key}={value}"]))
        changed.sampling.check(tokenizer.vocab_size)
        return changed

    def _with_base(self, other: Settings) -> Settings:
        kept = {name: value for name, value in self.over.items() if name in NOT_OF_CHOICE}
        return replace(other, over=kept)


def preset_settings(name: str) -> Settings:
    from pellucid.config import to_tree
    from pellucid.generate.sampling import preset

    return Settings(f"preset {name}", to_tree(preset(name)))


def strategy_settings(name: str) -> Settings:
    from pellucid.generate.strategies import strategy

    return Settings(f"strategy {name}", strategy(name).settings)


def settings_of(preset: str | None, strategy: str | None, given: Mapping[str, Any]) -> Settings:
    """Those of the options; None stands for what was not given. Raises ConfigError as `Settings.sampling` does."""
    if preset is not None and strategy is not None:
        raise ConfigError(
            f"--preset {preset} and --strategy {strategy} exclude each other; leave one of them out"
        )
    chosen = preset_settings(preset or DEFAULT_PRESET) if strategy is None else strategy_settings(strategy)
    settings = replace(chosen, over={name: value for name, value in given.items() if value is not None})
    _ = settings.sampling
    return settings


def searched_settings(given: Mapping[str, Any]) -> Settings:
    """Those of the options beside --num-beams. Raises ConfigError for one that says how ids are drawn."""
    if unfit := [_flag(name) for name in DRAWN if given.get(name) is not None]:
        raise ConfigError(
            f"--num-beams searches for the likeliest text and draws nothing; leave out {' and '.join(unfit)}, "
            "or --num-beams"
        )
    settings = Settings("beams", {}, {name: value for name, value in given.items() if value is not None})
    _ = settings.sampling
    return settings


def beams_of(
    num_beams: int | None, num_results: int | None, length_penalty: float | None, early_stopping: str | None
) -> BeamConfig | None:
    """Those of the options; None where none are asked for. Raises ConfigError where they do not fit each other."""
    of_beams = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    if num_beams is None:
        if unfit := [_flag(name) for name, value in of_beams.items() if value is not None]:
            raise ConfigError(f"{' and '.join(unfit)}: of beams alone; give --num-beams N too")
        return None
    from pellucid.config import from_tree
    from pellucid.generate.beam import BeamConfig

    stopping = {"no": False, "yes": True, "never": "never", None: None}[early_stopping]
    tree = {
        "num_beams": num_beams,
        "num_results": num_results,
        "length_penalty": length_penalty,
        "early_stopping": stopping,
    }
    return from_tree(BeamConfig, {name: value for name, value in tree.items() if value is not None})


def banned_ids(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Each text as the ids that may not come one after another. Raises ConfigError for an empty text."""
    if "" in texts:
        raise ConfigError("a banned text is empty, which would forbid everything; leave it out")
    return [tokenizer.encode(text).tolist() for text in texts]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ConfigError(f"{value}: {str(error).lower()}; close the quotes, or write \\' for one") from None
