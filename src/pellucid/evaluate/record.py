"""What an evaluation found, as one JSON file: the sums of every document, to be compared later. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.evaluate.bootstrap import Interval, difference_interval, ratio_interval
from pellucid.evaluate.items import item_interval, item_mean
from pellucid.runtime.files import write_atomic
from pellucid.runtime.strict_json import to_json

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class UnitScores:
    """The sums of every unit (document or block), [n] each, in the order of the text."""

    losses: NDArray[np.float64]
    """-log p in nats, summed over the unit's tokens."""
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    """UTF-8 bytes of the text that was scored."""
    domains: tuple[str, ...] = ()
    """One a unit; empty where the text has no parts."""
    marks: NDArray[np.float64] | None = None
    """The part of `losses` that bits per byte leave out: of special tokens, for objectives that are not causal."""

    def __post_init__(self) -> None:
        lengths = {len(self.losses), len(self.tokens), len(self.bytes)}
        lengths |= {len(self.domains)} if self.domains else set()
        lengths |= {len(self.marks)} if self.marks is not None else set()
        if len(lengths) > 1:
            raise DataError(f"units want lists of equal length, not of {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def told(self) -> NDArray[np.float64]:
        """The losses that bits per byte count."""
        return self.losses if self.marks is None else self.losses - self.marks

    def of_domain(self, domain: str) -> UnitScores:
        """Its units alone."""
        kept = np.array([name == domain for name in self.domains], dtype=np.bool_)
        marks = None if self.marks is None else self.marks[kept]
        return UnitScores(
            self.losses[kept], self.tokens[kept], self.bytes[kept], (domain,) * int(kept.sum()), marks
        )


@dataclass(frozen=True, eq=False)
class TextEvaluation:
    """How a model predicts a text, document by document or block by block."""

    data: str
    """The text, for people."""
    text_sha256: str
    """Of the scored bytes: equal for models that were scored on the same text."""
    tokenizer: str
    """Its fingerprint."""
    unit: str
    """What a unit is: "document", or "block of 2,048 bytes"."""
    window: int
    stride: int
    units: UnitScores
    seen_in_training: float | None = None
    """Share of spans of about 100 bytes of it that stand in the model's own training text; None where nobody looked."""

    @property
    def tokens(self) -> int:
        return int(self.units.tokens.sum())

    @property
    def bytes(self) -> int:
        return int(self.units.bytes.sum())

    @property
    def loss(self) -> float:
        """Mean -log p in nats a token."""
        return math.fsum(self.units.losses) / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        return exponential(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Compares between tokenizers; not a number where nothing of the text has bytes."""
        return math.fsum(self.units.told) / math.log(2) / self.bytes if self.bytes else math.nan

    @cached_property
    def loss_interval(self) -> Interval | None:
        """Over units; None where there are too few of them to say."""
        return interval_or_none(self.units.losses, self.units.tokens)

    @property
    def perplexity_interval(self) -> Interval | None:
        found = self.loss_interval
        if found is None:
            return None
        return Interval(
            exponential(found.value), exponential(found.low), exponential(found.high), found.level
        )

    @cached_property
    def bits_per_byte_interval(self) -> Interval | None:
        return interval_or_none(self.units.told / math.log(2), self.units.bytes)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of its parts, each once, in the order of the text; empty where it has none."""
        return tuple(dict.fromkeys(self.units.domains))

    @property
    def unit_name(self) -> str:
        """The unit in the plural: "blocks of 2,048 bytes"."""
        word, *rest = self.unit.split(" ")
        return " ".join([f"{word}s", *rest])

    @property
    def counted_units(self) -> str:
        """Such as "59 blocks of 2,048 bytes"."""
        count = len(self.units)
        return f"{count:,} {self.unit if count == 1 else self.unit_name}"

    @property
    def is_mixed(self) -> bool:
        """Whether it has several parts."""
        return len(self.domains) > 1

    def of_domain(self, domain: str) -> TextEvaluation:
        """One part of it. The hash stays that of the whole text."""
        return TextEvaluation(
            f"{self.data}: {domain}",
            self.text_sha256,
            self.tokenizer,
            self.unit,
            self.window,
            self.stride,
            self.units.of_domain(domain),
        )

    def summary(self) -> dict[str, Any]:
        """The numbers without the units, as plain values: what --json prints."""

        def bounds(interval: Interval | None) -> list[float] | None:
            return None if interval is None else [interval.low, interval.high]

        return {
            "data": self.data,
            "loss": self.loss,
            "loss_interval": bounds(self.loss_interval),
            "perplexity": self.perplexity,
            "perplexity_interval": bounds(self.perplexity_interval),
            "bits_per_byte": self.bits_per_byte,
            "bits_per_byte_interval": bounds(self.bits_per_byte_interval),
            "tokens": self.tokens,
            "bytes": self.bytes,
            "unit": self.unit,
            "units": len(self.units),
            "window": self.window,
            "stride": self.stride,
            "text_sha256": self.text_sha256,
            "seen_in_training": self.seen_in_training,
            **(
                {"domains": {name: self.of_domain(name).summary() for name in self.domains}}
                if self.is_mixed
                else {}
            ),
        }

    def to_dict(self) -> dict[str, Any]:
        units = self.units
        return {
            "data": self.data,
            "text_sha256": self.text_sha256,
            "tokenizer": self.tokenizer,
            "unit": self.unit,
            "window": self.window,
            "stride": self.stride,
            "losses": units.losses.tolist(),
            "tokens": units.tokens.tolist(),
            "bytes": units.bytes.tolist(),
            "domains": list(units.domains),
            **({} if units.marks is None else {"marks": units.marks.tolist()}),
            "seen_in_training": self.seen_in_training,
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> TextEvaluation:
        marks = _floats(tree["marks"]) if "marks" in tree else None
        units = UnitScores(
            _floats(tree["losses"]),
            np.array(tree["tokens"], dtype=np.int64),
            np.array(tree["bytes"], dtype=np.int64),
            tuple(map(str, tree["domains"])),
            marks,
        )
        return cls(
            str(tree["data"]),
            str(tree["text_sha256"]),
            str(tree["tokenizer"]),
            str(tree["unit"]),
            int(tree["window"]),
            int(tree["stride"]),
            units,
            None if (seen := tree["seen_in_training"]) is None else float(seen),
        )


@dataclass(frozen=True, eq=False)
class TaskEvaluation:
    """How a model does a task: what every item gave, by metric."""

    task: str
    file_sha256: str
    metrics: Mapping[str, NDArray[np.float64]]
    """By name: acc, acc_norm, nll, …: [items]."""
    summaries: Mapping[str, str]
    """How each metric's items become one number: "mean", or "perplexity", exp of the mean."""
    chance: Mapping[str, float] = field(default_factory=dict[str, float])
    """What guessing would give, by metric, where guessing gives anything."""
    truncated: int = 0
    """Items of which the model's window has cut something off."""
    parts: tuple[int, ...] = ()
    """Of a folder: how many items each of its files has, one after the other. Its mean is that of the parts' means."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.metrics.values()}
        if len(lengths) > 1 or self.metrics.keys() != self.summaries.keys():
            raise DataError(
                f"{self.task}: metrics want lists of equal length and a summary each, not lists of {sorted(lengths)} "
                f"for {', '.join(self.metrics)} and summaries for {', '.join(self.summaries)}"
            )
        if unknown := set(self.summaries.values()) - {"mean", "perplexity"}:
            raise DataError(f"{self.task}: there is no summary {sorted(unknown)[0]!r}: mean or perplexity")
        if self.parts and (min(self.parts) < 1 or {sum(self.parts)} != lengths):
            raise DataError(f"{self.task}: parts of {self.parts} items do not make {sorted(lengths)} items")

    @property
    def items(self) -> int:
        return max((len(values) for values in self.metrics.values()), default=0)

    def value(self, metric: str) -> float:
        """The metric over all items, or the plain average of its parts."""
        mean = item_mean(self.metrics[metric], self.parts)
        return exponential(mean) if self.summaries[metric] == "perplexity" else mean

    def interval(self, metric: str) -> Interval | None:
        """Over items; None where there are too few of them to say."""
        values = self.metrics[metric]
        if not can_tell(values, self.parts):
            return None
        found = item_interval(values, self.parts)
        if self.summaries[metric] == "mean":
            return found
        return Interval(self.value(metric), exponential(found.low), exponential(found.high), found.level)

    def summary(self) -> dict[str, Any]:
        """The numbers without the items, as plain values: what --json prints."""
        metrics: dict[str, Any] = {}
        for name in self.metrics:
            interval = self.interval(name)
            metrics[name] = {
                "value": self.value(name),
                "interval": None if interval is None else [interval.low, interval.high],
                "chance": self.chance.get(name),
            }
        return {
            "task": self.task,
            "items": self.items,
            "truncated": self.truncated,
            "metrics": metrics,
            "file_sha256": self.file_sha256,
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "file_sha256": self.file_sha256,
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
            "summaries": dict(self.summaries),
            "chance": dict(self.chance),
            "truncated": self.truncated,
            **({"parts": list(self.parts)} if self.parts else {}),
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> TaskEvaluation:
        metrics = {str(name): _floats(values) for name, values in tree["metrics"].items()}
        summaries = {str(name): str(word) for name, word in tree["summaries"].items()}
        chance = {str(name): float(value) for name, value in tree["chance"].items()}
        return cls(
            str(tree["task"]),
            str(tree["file_sha256"]),
            metrics,
            summaries,
            chance,
            int(tree["truncated"]),
            tuple(map(int, tree.get("parts", ()))),
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured of one model at once."""

    model: str
    """For people: the checkpoint's path as it was given."""
    weights_sha256: str
    parameters: int
    precision: str
    trained_on: str
    """The fingerprint of its training data; "" where it is not known."""
    texts: tuple[TextEvaluation, ...] = ()
    tasks: tuple[TaskEvaluation, ...] = ()
    created: str = ""
    """When, as ISO 8601."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as that the text was trained on."""

    def summary(self) -> dict[str, Any]:
        """The numbers without units and items, as plain values."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "precision": self.precision,
            "texts": [text.summary() for text in self.texts],
            "tasks": [task.summary() for task in self.tasks],
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "parameters": self.parameters,
            "precision": self.precision,
            "trained_on": self.trained_on,
            "created": self.created,
            "notes": list(self.notes),
            "texts": [text.to_dict() for text in self.texts],
            "tasks": [task.to_dict() for task in self.tasks],
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], where: str = "evaluation") -> Evaluation:
        """Raises DataError, which begins with `where`, for anything that `to_dict` would not write."""
        version = tree.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(
                f"{where}: an evaluation of format {version!r}; this version of Pellucid reads {FORMAT_VERSION}"
            )
        try:
            return cls(
                str(tree["model"]),
                str(tree["weights_sha256"]),
                int(tree["parameters"]),
                str(tree["precision"]),
                str(tree["trained_on"]),
                tuple(TextEvaluation.from_dict(text) for text in tree["texts"]),
                tuple(TaskEvaluation.from_dict(task) for task in tree["tasks"]),
                str(tree["created"]),
                tuple(map(str, tree["notes"])),
            )
        except KeyError as error:
            raise DataError(f"{where}: altered or truncated: {error.args[0]!r} is not there") from None
        except (TypeError, ValueError, AttributeError, OverflowError, DataError) as error:
            raise DataError(f"{where}: altered or truncated: {error}") from None

    def write(self, path: Path) -> None:
        """One JSON file, which appears whole or not at all; null for what is not finite, which is read as NaN.

        Raises StorageError when it cannot be written.
        """
        write_atomic(path, to_json(self.to_dict()) + "\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Raises DataError when the file is missing, damaged or none of an evaluation."""
        try:
            tree: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {str(error.strerror).lower()}") from None
        except ValueError as error:
            raise DataError(f"{path}: altered or truncated: {error}") from None
        if not isinstance(tree, dict):
            raise DataError(f"{path}: holds no evaluation; pellucid evaluate writes one with --out FILE")
        return cls.from_dict(cast(dict[str, Any], tree), str(path))


def exponential(loss: float) -> float:
    """exp(loss), infinite where that is larger than any number."""
    return math.exp(loss) if loss < 700 else math.inf


def interval_or_none(numerators: NDArray[Any], denominators: NDArray[Any]) -> Interval | None:
    """The interval of a score, or None where there are fewer than two units, or losses that are no numbers."""
    if np.count_nonzero(denominators) < 2 or not np.isfinite(numerators).all():
        return None
    return ratio_interval(numerators, denominators)


def difference_or_none(
    numerators: NDArray[Any], denominators: NDArray[Any], *, level: float = 0.95, replicates: int = 2000
) -> Interval | None:
    """The interval of a paired difference of two scores, or None as `interval_or_none` has it."""
    if np.count_nonzero(denominators) < 2 or not np.isfinite(numerators).all():
        return None
    return difference_interval(numerators, denominators, level=level, replicates=replicates)


def can_tell(values: NDArray[Any], parts: Sequence[int] = ()) -> bool:
    """Whether items have an interval: there are two, in one part, and all are finite."""
    is_enough = len(values) > 1 and (max(parts, default=2) > 1 or bool(np.isin(values, (0, 1)).all()))
    return is_enough and bool(np.isfinite(values).all())


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    """With NaN for None."""
    return np.array(values, dtype=np.float64)
