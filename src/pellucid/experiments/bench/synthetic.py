"""Random ids where a run has its data: what is measured does not depend on what a text says, and nothing is read."""

from __future__ import annotations

import numpy as np

from pellucid import tokenizers
from pellucid.data.objectives import Objective, PairedConfig
from pellucid.data.shards import Split
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.runtime.device import Device
from pellucid.train.config import RunConfig
from pellucid.train.opening import build_objective, resolve
from pellucid.train.plan import Plan

_EPOCH_WINDOWS = 10**9
"""Nobody knows how long train.epochs is: long enough for every choice that is made for a long run."""


def plan_synthetic(config: RunConfig, device: Device) -> tuple[Plan, Objective]:
    """What `pellucid train` would choose, and the objective, without opening any data.

    A char tokenizer, which is made from its text, is made from the built-in corpus.  Raises ConfigError for what
    cannot be planned.
    """
    tokenizer = tokenizers.build(config.data.tokenizer, lambda: texts(BuiltinSource("shakespeare")))
    objective = build_objective(config, tokenizer)
    return resolve(config, tokenizer, objective, device, windows_per_epoch=_EPOCH_WINDOWS), objective


def synthetic_split(plan: Plan) -> Split:
    """Documents of random ids, just enough for one batch (for two rows at least), so that all steps see the same."""
    is_paired = isinstance(plan.config.data.objective, PairedConfig)
    documents = max(2, plan.batch_windows) * (2 if is_paired else 1)
    vocab_size = plan.config.model.vocab_size
    assert vocab_size is not None  # a plan has resolved it
    draw = np.random.default_rng(plan.config.train.seed)
    ids = draw.integers(vocab_size, size=documents * plan.seq_len).astype(np.uint32)
    starts = np.arange(documents, dtype=np.uint64) * np.uint64(plan.seq_len)
    return Split("synthetic", (ids,), (starts,), is_paired=is_paired)
