"""Which steps a SamplingConfig asks for, and in which order: that in which `transformers.generate` applies its own.

Settings that would change nothing are left out. Two settings that `transformers` has not stand where vLLM and
llama.cpp have them: frequency and presence penalties after the repetition penalty, top-n-sigma before temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.errors import ConfigError
from pellucid.generate.sampling import constraints, filters, penalties
from pellucid.generate.written import Step
from pellucid.model.decoding import keep_top_k

if TYPE_CHECKING:
    from pellucid.generate.sampling.config import SamplingConfig

Filter = Callable[[Float[Tensor, "B V"]], Float[Tensor, "B V"]]

EDITS = (
    "logit_bias",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram_size",
    "banned",
    "min_new_tokens",
)
"""The settings of `edits` that can leave a row without an id."""


def steps(config: SamplingConfig, vocab_size: int | None, end_id: int | None) -> list[Step]:
    """All steps: the edits, then the filters."""
    cut: list[Step] = []
    if vocab_size is not None:
        cut.append(lambda logits, _: constraints.forbid_from(logits, vocab_size))
    kept = before_top_k(config)
    if config.temperature > 0 and (top_k := config.top_k) is not None:
        kept.append(lambda logits: keep_top_k(logits, top_k))
    return [*cut, *edits(config, end_id), *(_alone(each) for each in (*kept, *after_top_k(config)))]


def edits(config: SamplingConfig, end_id: int | None) -> list[Step]:
    """What depends on ids: biases, penalties, bans, forced ids.

    Raises ConfigError when the end of text is to be forced and there is none.
    """
    c = config
    chosen: list[Step] = []
    if c.logit_bias:
        ids, values = torch.tensor(list(c.logit_bias)), torch.tensor(list(c.logit_bias.values()))
        chosen.append(lambda logits, _: constraints.add_bias(logits, ids, values))
    if c.repetition_penalty != 1:
        chosen.append(lambda x, written: penalties.penalise_repetition(x, written, c.repetition_penalty))
    if c.frequency_penalty or c.presence_penalty:
        chosen.append(
            lambda x, written: penalties.penalise_counts(x, written, c.frequency_penalty, c.presence_penalty)
        )
    if (size := c.no_repeat_ngram_size) is not None:
        chosen.append(lambda x, written: penalties.forbid_repeated_ngrams(x, written, size))
    chosen += [_forbidding(table) for table in constraints.tables_of(c.banned)]
    if end_id is not None and c.min_new_tokens:
        chosen.append(lambda x, written: constraints.forbid_end_before(x, written, end_id, c.min_new_tokens))
    if c.forced:
        first = torch.tensor(c.forced)
        chosen.append(lambda x, written: constraints.force(x, written, first))
    if c.force_end:
        if end_id is None:
            raise ConfigError("force_end: the tokenizer has no end-of-text token to force; leave it out")
        end = torch.tensor([end_id])
        chosen.append(lambda x, written: constraints.force(x, written, end, c.max_new_tokens - 1))
    return chosen


def before_top_k(config: SamplingConfig) -> list[Filter]:
    """Filters that need the logits of the whole vocabulary; none at temperature 0, where they cannot matter."""
    n, temperature = config.top_n_sigma, config.temperature
    chosen: list[Filter] = []
    if n is not None and temperature > 0:
        chosen.append(lambda logits: filters.keep_top_n_sigma(logits, n))
    if temperature not in (0, 1):
        chosen.append(lambda logits: logits / temperature)
    return chosen


def after_top_k(config: SamplingConfig) -> list[Filter]:
    """Filters that work as well on the ids that top-k leaves."""
    c = config
    table: list[tuple[bool, Filter]] = [
        (c.top_p < 1, lambda logits: filters.keep_top_p(logits, c.top_p)),
        (c.min_p > 0, lambda logits: filters.keep_min_p(logits, c.min_p)),
        (c.typical_p < 1, lambda logits: filters.keep_typical(logits, c.typical_p)),
        (c.epsilon_cutoff > 0, lambda logits: filters.keep_above_epsilon(logits, c.epsilon_cutoff)),
        (c.eta_cutoff > 0, lambda logits: filters.keep_above_eta(logits, c.eta_cutoff)),
    ]
    return [each for is_asked_for, each in table if is_asked_for and c.temperature > 0]


def _alone(each: Filter) -> Step:
    return lambda logits, _: each(logits)


def _forbidding(table: Tensor) -> Step:
    return lambda logits, written: constraints.forbid_sequences(logits, written, table)
