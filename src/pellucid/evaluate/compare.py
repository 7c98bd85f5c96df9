"""Is B better than A, and by how much? From what was measured of each, document by document. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.evaluate.bootstrap import ratio_interval
from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import Evaluation, TaskEvaluation, TextEvaluation

CONTAMINATED = 0.05
"""Share of a text's spans in a model's training text above which its score on that text is not believed."""


@dataclass(frozen=True)
class Difference:
    """One number of two models: what the second has more than the first."""

    what: str
    """The text or the task."""
    metric: str
    first: str
    second: str
    interval: Interval
    """Of second - first; that of the verdict, wide enough for all comparisons together to be wrong as rarely as one."""
    lower_is_better: bool
    units: str
    """Over what the interval goes, such as "59 blocks of 2,048 bytes"."""
    is_paired: bool = True

    @property
    def better(self) -> str | None:
        """The better model; None where the interval holds 0."""
        if self.interval.low <= 0 <= self.interval.high:
            return None
        return self.second if (self.interval.value < 0) == self.lower_is_better else self.first

    def __str__(self) -> str:
        by = f"{abs(self.interval.value):.4f} ± {self.interval.half:.4f} {self.metric}"
        if self.better is None:
            return f"{self.second} and {self.first} cannot be told apart: they differ by {by}"
        worse = self.first if self.better == self.second else self.second
        return f"{self.better} is better than {worse} by {by}; the difference would not be chance"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "better": self.better, "sentence": str(self)}


@dataclass(frozen=True)
class Comparison:
    """Every model beside the first."""

    models: tuple[str, ...]
    differences: tuple[Difference, ...]
    cautions: tuple[str, ...]
    """What a reader of the numbers has to know."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "differences": [each.to_dict() for each in self.differences],
            "cautions": list(self.cautions),
        }


def compare(evaluations: Sequence[Evaluation], *, force: bool = False, seed: int = 0) -> Comparison:
    """The paired differences of all others from the first, over the texts and tasks that all have in common.

    Texts compare in bits per byte, whatever the tokenizers; tasks in each of their metrics. Documents (blocks, items)
    are resampled in pairs: what makes one hard for both models is no noise in their difference. What would be unfair,
    and why, is in the DataError raised; `force` makes it a caution, and what cannot be paired is compared unpaired.
    """
    if len(evaluations) < 2:
        raise DataError("a comparison wants at least two models")
    unfair = [line for other in evaluations[1:] for line in obstacles(evaluations[0], other)]
    unfair += [line for each in evaluations for line in _contamination(each)]
    if unfair and not force:
        raise DataError(
            "this would not be a fair comparison (--force makes it all the same):\n" + _listed(unfair)
        )
    names = _names(evaluations)
    level = 1 - 0.05 / (len(evaluations) - 1)
    found = [
        difference
        for name, other in zip(names[1:], evaluations[1:], strict=True)
        for difference in _differences(evaluations[0], other, (names[0], name), level, seed)
    ]
    if not found:
        raise DataError(
            "there is nothing to compare:\n"
            + _listed(
                unfair
                or ["what they have in common is too little for an interval; name a longer text with --data"]
            )
        )
    return Comparison(tuple(names), tuple(found), (*unfair, *_cautions(evaluations)))


def obstacles(first: Evaluation, second: Evaluation) -> list[str]:
    """Why two evaluations do not compare; empty where they do."""
    pairs = list(_text_pairs(first, second))
    lines = [line for a, b in pairs if (line := _mismatch(a, b, second.model)) is not None]
    tasks = {task.task: task for task in second.tasks}
    for task in first.tasks:
        other = tasks.get(task.task)
        if other is not None and other.file_sha256 != task.file_sha256:
            lines.append(f"{task.task}: {second.model} was measured on another file than {first.model}")
        elif other is not None and other.items != task.items:
            lines.append(
                f"{task.task}: {second.model} has {other.items:,} items and {first.model} {task.items:,}"
            )
    if not pairs and not any(task.task in tasks for task in first.tasks):
        lines.append(f"{second.model} was measured on nothing that {first.model} was measured on")
    return lines


def _text_pairs(first: Evaluation, second: Evaluation) -> Iterator[tuple[TextEvaluation, TextEvaluation]]:
    """Texts that are the same, then those that stand at the same place and are not."""
    left = list(second.texts)
    for text in first.texts:
        same = next(
            (other for other in left if other.text_sha256 == text.text_sha256), left[0] if left else None
        )
        if same is not None:
            left.remove(same)
            yield text, same


def _mismatch(a: TextEvaluation, b: TextEvaluation, model: str) -> str | None:
    if a.text_sha256 != b.text_sha256:
        return (
            f"{model} was scored on other text ({b.data}; the first on {a.data}); name one text with --data"
        )
    if not _is_paired(a, b):
        return f"{a.data}: {model} was scored in other units ({b.counted_units}, and the first in {a.counted_units})"
    return None


def _is_paired(a: TextEvaluation, b: TextEvaluation) -> bool:
    return a.text_sha256 == b.text_sha256 and np.array_equal(a.units.bytes, b.units.bytes)


def _contamination(evaluation: Evaluation) -> Iterator[str]:
    for text in evaluation.texts:
        if text.seen_in_training is not None and text.seen_in_training > CONTAMINATED:
            yield (
                f"{text.data}: {text.seen_in_training:.0%} of its spans of 100 bytes stand in the training text of "
                f"{evaluation.model}"
            )


def _differences(
    a: Evaluation, b: Evaluation, names: tuple[str, str], level: float, seed: int
) -> Iterator[Difference]:
    for ours, theirs in _text_pairs(a, b):
        found = _of_texts(ours, theirs, level, seed)
        if found is not None:
            yield Difference(
                ours.data,
                "bits/byte",
                *names,
                found,
                lower_is_better=True,
                units=ours.counted_units,
                is_paired=_is_paired(ours, theirs),
            )
    others = {task.task: task for task in b.tasks}
    for task in a.tasks:
        if task.task in others:
            yield from _of_tasks(task, others[task.task], names, level, seed)


def _of_texts(a: TextEvaluation, b: TextEvaluation, level: float, seed: int) -> Interval | None:
    (first, second), sizes = ([t.units.told / math.log(2) for t in (a, b)], [t.units.bytes for t in (a, b)])
    if _is_paired(a, b):
        return _over_units(second - first, sizes[0], level, seed)
    return _apart(_over_units(first, sizes[0], level, seed), _over_units(second, sizes[1], level, seed))


def _of_tasks(
    a: TaskEvaluation, b: TaskEvaluation, names: tuple[str, str], level: float, seed: int
) -> Iterator[Difference]:
    is_paired = a.file_sha256 == b.file_sha256 and a.items == b.items
    for metric in (name for name in a.metrics if name in b.metrics):
        first, second, ones = a.metrics[metric], b.metrics[metric], [np.ones(task.items) for task in (a, b)]
        if is_paired:
            found = _over_units(second - first, ones[0], level, seed)
        else:
            found = _apart(
                _over_units(first, ones[0], level, seed), _over_units(second, ones[1], level, seed)
            )
        if found is not None:
            is_loss = a.summaries[metric] == "perplexity"
            yield Difference(
                a.task,
                "nats an item" if is_loss else metric,
                *names,
                found,
                lower_is_better=is_loss,
                units=f"{a.items:,} items",
                is_paired=is_paired,
            )


def _over_units(tops: NDArray[Any], bottoms: NDArray[Any], level: float, seed: int) -> Interval | None:
    """The interval of a ratio; None where there are fewer than two units, or losses that are no numbers."""
    if np.count_nonzero(bottoms) < 2 or not np.isfinite(tops).all():
        return None
    return ratio_interval(tops, bottoms, level=level, seed=seed)


def _apart(a: Interval | None, b: Interval | None) -> Interval | None:
    """B - a of two values that nothing pairs: their uncertainties add in squares."""
    if a is None or b is None:
        return None
    value, half = b.value - a.value, math.hypot(a.half, b.half)
    return Interval(value, value - half, value + half, a.level)


def _cautions(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    first = evaluations[0]
    for other in evaluations[1:]:
        for a, b in _text_pairs(first, other):
            if (a.window, a.stride) != (b.window, b.stride):
                yield (
                    f"{a.data}: {other.model} was read in windows of {b.window:,} tokens (stride {b.stride:,}), "
                    f"{first.model} in windows of {a.window:,} (stride {a.stride:,})"
                )
        if other.precision != first.precision:
            yield f"{other.model} was computed in {other.precision}, {first.model} in {first.precision}"
        if "" not in (first.trained_on, other.trained_on) and first.trained_on != other.trained_on:
            yield f"{other.model} was trained on other data than {first.model}: the difference is not the model's alone"
    for each in evaluations:
        yield from (f"{each.model}: {note}" for note in each.notes)
    yield "The intervals are over documents or items; what another seed of training would change is not in them."


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """What each is called; numbered where two have one name."""
    names = [evaluation.model for evaluation in evaluations]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names, start=1)]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in dict.fromkeys(lines))
