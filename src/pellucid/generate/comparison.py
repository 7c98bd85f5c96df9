"""One prompt continued in many ways with many seeds: the texts side by side, and how varied they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pellucid.config import from_tree, to_tree
from pellucid.generate.engine import Options
from pellucid.generate.prefixes import Prefixes
from pellucid.generate.samples import Figures, Sample, figures, measure
from pellucid.generate.sampling import PRESETS, SamplingConfig, preset
from pellucid.generate.strategies import STRATEGIES, strategy
from pellucid.generate.text import generate_text, start_ids
from pellucid.model.decoding import tokens_read
from pellucid.model.interface import LanguageModel
from pellucid.tokenizers import Tokenizer

DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_NEW_TOKENS = 80
PREFIX_BYTES = 256 * 2**20
"""Memory for what was read of the prompt."""


@dataclass(frozen=True)
class Continuations:
    """What one way of choosing ids has written, with each seed."""

    name: str
    description: str
    settings: Mapping[str, Any]
    """The temperature, and whatever else it sets."""
    is_drawn: bool
    """Whether the seed matters; where it does not, every sample is the same."""
    samples: tuple[Sample, ...]
    figures: Figures


@dataclass(frozen=True)
class SamplingComparison:
    """One prompt under many strategies and seeds."""

    prompt: str
    prompt_tokens: int
    """Ids of the prompt, or 1 for the id that an empty prompt starts from."""
    prompt_tokens_read: int
    """How many of them, the newest, the model has read: fewer where the prompt is longer than the context."""
    seeds: tuple[int, ...]
    max_new_tokens: int
    tokenizer: str
    continues_prompt: bool
    """Whether texts follow the prompt (a decoder's), or answer it."""
    strategies: tuple[Continuations, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choices(strategies: Iterable[str] = (), presets: Iterable[str] = ()) -> dict[str, SamplingConfig]:
    """The settings of these strategies and presets by name; without a name, all there are. Raises ConfigError."""
    strategies, presets = tuple(strategies), tuple(presets)
    if not strategies and not presets:
        strategies, presets = tuple(STRATEGIES), tuple(PRESETS)
    named = {name: from_tree(SamplingConfig, strategy(name).settings) for name in strategies}
    return named | {name: preset(name) for name in presets}


def compare_sampling(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    strategies: Mapping[str, SamplingConfig] | None = None,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    on_sample: Callable[[int, int], object] | None = None,
) -> SamplingComparison:
    """Continue the prompt once with each strategy and seed, and measure what was written.

    strategies: settings by name (see `choices`), by default all there are; `seeds` and `max_new_tokens` stand for
    their own. What the seed cannot change is written once and stands for every seed. on_sample(done, total) is
    called after each text. Raises ConfigError for settings out of range, TokenizerError for a prompt without ids.
    """
    named = choices() if strategies is None else strategies
    if not named or not seeds:
        raise ValueError("there is nothing to compare: give at least one strategy and one seed")
    work = {name: _with_seeds(sampling, seeds, max_new_tokens) for name, sampling in named.items()}
    total, done = sum(map(len, work.values())), 0
    prompt_ids = start_ids(tokenizer, prompt, allow_special=not model.continues_prompt)
    found: list[Continuations] = []
    options = Options(prefixes=Prefixes(PREFIX_BYTES))  # the prompt is read once
    for name, configs in work.items():
        samples: list[Sample] = []
        for sampling in configs:
            written = generate_text(model, tokenizer, prompt, sampling, options=options)
            samples.append(measure(model, tokenizer, prompt_ids, written, seed=sampling.seed))
            done += 1
            if on_sample is not None:
                on_sample(done, total)
        if not is_drawn(named[name]):
            samples = [replace(samples[0], seed=seed) for seed in seeds]
        found.append(_continuations(name, named[name], samples))
    return SamplingComparison(
        prompt=prompt,
        prompt_tokens=len(prompt_ids),
        prompt_tokens_read=tokens_read(len(prompt_ids), model.max_seq_len),
        seeds=tuple(seeds),
        max_new_tokens=max_new_tokens,
        tokenizer=tokenizer.kind,
        continues_prompt=model.continues_prompt,
        strategies=tuple(found),
    )


def is_drawn(sampling: SamplingConfig) -> bool:
    """Whether its text depends on the seed."""
    return sampling.temperature > 0


def _with_seeds(sampling: SamplingConfig, seeds: Sequence[int], max_new_tokens: int) -> list[SamplingConfig]:
    """The settings once for each seed that can lead to another text."""
    settings = to_tree(sampling) | {"max_new_tokens": max_new_tokens}
    told_apart = seeds if is_drawn(sampling) else seeds[:1]
    return [from_tree(SamplingConfig, settings | {"seed": seed}) for seed in told_apart]


def _continuations(name: str, sampling: SamplingConfig, samples: Sequence[Sample]) -> Continuations:
    return Continuations(
        name=name,
        description=STRATEGIES[name].description if name in STRATEGIES else f"the preset {name!r}",
        settings=_settings(sampling),
        is_drawn=is_drawn(sampling),
        samples=tuple(samples),
        figures=figures(samples),
    )


def _settings(sampling: SamplingConfig) -> dict[str, Any]:
    plain = to_tree(SamplingConfig(seed=sampling.seed, max_new_tokens=sampling.max_new_tokens))
    return {
        key: value
        for key, value in to_tree(sampling).items()
        if key == "temperature" or value != plain.get(key)
    }
