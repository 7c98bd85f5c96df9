"""Mean loss, perplexity and bits per byte of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.data.batch import Batch
from pellucid.data.evaluation import scored_tokens
from pellucid.data.objectives import Causal, Objective
from pellucid.data.shards import Split
from pellucid.evaluate.scoring import score_windows
from pellucid.model import LanguageModel
from pellucid.runtime.precision import Precision
from pellucid.tokenizers import Tokenizer

_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Perplexity:
    """How a model predicts a text.

    loss: mean -log p in nats a token; perplexity: exp(loss); bits_per_byte: the summed loss in bits, divided by
    the UTF-8 bytes of the scored text, which compares between tokenizers.

    Special tokens have no bytes. Their loss is in loss and perplexity always. In bits_per_byte it counts for
    causal scoring, where a mark between documents is a part of the text that has to be told; for every other
    objective (sentinels, ends of targets) it is left out, so that a task's marks cost nothing.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_split(
    model: LanguageModel,
    tokenizer: Tokenizer,
    split: Split,
    precision: Precision,
    *,
    objective: Objective | None = None,
    seq_len: int | None = None,
    max_tokens: int | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Perplexity:
    """Score every token of a split but the first of each shard, once: contiguous windows, none overlapping.

    A token sees the tokens before it in its own window of `seq_len` (default: the model's context). With
    `max_tokens`, only that many first tokens of the split are scored, always the same ones.

    With an `objective`, which brings its own window length, what it gives weight to is scored instead, always
    from the same draws; bytes are those of that text (of the spans that were cut out, of the target, …).

    `before_batch` is called before each batch; what it raises ends the scoring.
    """
    chosen = objective or Causal(seq_len or model.max_seq_len)
    at_once = min(_BATCH_TOKENS, scored_tokens(split, max_tokens))
    batches = chosen.evaluation_batches(split, max(1, at_once // chosen.seq_len), max_tokens)
    if before_batch is not None:
        batches = _announced(batches, before_batch)
    return summarise(model, tokenizer, batches, precision, counts_special=isinstance(chosen, Causal))


def _announced(batches: Iterable[Batch], before_batch: Callable[[], None]) -> Iterator[Batch]:
    for batch in batches:
        before_batch()
        yield batch


def summarise(
    model: LanguageModel,
    tokenizer: Tokenizer,
    batches: Iterable[Batch],
    precision: Precision,
    *,
    counts_special: bool,
) -> Perplexity:
    """The numbers over all windows; sums in float64. counts_special: whether in bits_per_byte too."""
    total, ordinary, tokens, scored_bytes = 0.0, 0.0, 0, 0
    special = np.array(sorted(tokenizer.special_tokens.values()), dtype=np.int64)
    for targets, losses in score_windows(model, batches, precision):
        total += float(losses.sum(dtype=np.float64))
        tokens += len(targets)
        is_text = ~np.isin(targets, special)
        ordinary += float(losses[is_text].sum(dtype=np.float64))
        scored_bytes += len(tokenizer.decode_bytes(targets[is_text]))
    loss = total / max(tokens, 1)
    told = total if counts_special else ordinary
    bits_per_byte = told / math.log(2) / scored_bytes if scored_bytes else math.nan
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return Perplexity(loss, perplexity, bits_per_byte, tokens, scored_bytes)
