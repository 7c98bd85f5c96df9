"""What storing a checkpoint's weights in fewer bits costs: its perplexity before and after, on its own data."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid import checkpoint
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.errors import CheckpointError, ConfigError, DataError, StorageError
from pellucid.evaluate.documents import Passage, evaluate_documents
from pellucid.evaluate.perplexity import Perplexity
from pellucid.evaluate.record import TextEvaluation
from pellucid.generate.opening import Writer, conversion_file
from pellucid.model.packed import Quantised
from pellucid.runtime.device import Device
from pellucid.runtime.files import write_atomic
from pellucid.runtime.precision import Precision
from pellucid.train.score import score_loaded

TOKENS = 8192
"""How many first tokens are scored."""
ELSEWHERE = "the built-in corpus"
"""What is scored where a model's own data is not here."""


@dataclass(frozen=True)
class QuantisingCost:
    """The same tokens predicted by the weights as they were saved and as they are stored."""

    data: str
    tokens: int
    before: float
    """Perplexity of the float32 weights."""
    after: float

    @property
    def relative(self) -> float:
        """By which share perplexity has risen."""
        return self.after / self.before - 1

    def __str__(self) -> str:
        return (
            f"perplexity {self.before:.3f} → {self.after:.3f} ({self.relative:+.2%}) over {self.tokens:,} tokens of "
            f"{self.data}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quantising_cost(path: Path, writer: Writer, form: Quantised, device: Device) -> QuantisingCost:
    """Measured when a checkpoint is first quantised, and kept beside its quantised weights.

    On the run's validation data; where that is not here (an imported model), on the built-in corpus. Raises
    CheckpointError for a model that cannot be scored without its data: an encoder-decoder.
    """
    file = conversion_file(path, form).with_suffix(".json")
    with suppress(OSError, ValueError, TypeError):  # not measured yet, or what was written is damaged
        return QuantisingCost(**json.loads(file.read_text(encoding="utf-8")))
    precision = Precision("fp32", device, "to compare")
    before = checkpoint.load(path, device=device.torch, is_verified=True)
    name, exact = _score(before, precision)
    _, rounded = _score(writer.loaded, precision)
    cost = QuantisingCost(name, exact.tokens, exact.perplexity, rounded.perplexity)
    if name != ELSEWHERE:  # a run's data may come back
        with suppress(StorageError):  # then it is measured again the next time
            write_atomic(file, json.dumps(cost.to_dict()))
    return cost


def _score(loaded: checkpoint.Loaded, precision: Precision) -> tuple[str, Perplexity | TextEvaluation]:
    try:
        return score_loaded(loaded, precision=precision, max_tokens=TOKENS)
    except (CheckpointError, ConfigError, DataError):
        if not loaded.model.continues_prompt:
            raise
    passage = Passage("".join(texts(BuiltinSource("shakespeare"))))
    return ELSEWHERE, evaluate_documents(
        loaded.model, loaded.tokenizer, [passage], precision, max_tokens=TOKENS
    )
