"""Is B better than A, and by how much? From what was measured of each, document by document. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.errors import DataError
from pellucid.evaluate.bootstrap import difference_interval, ratio_interval
from pellucid.evaluate.interval import Interval
from pellucid.evaluate.items import apart, item_difference, item_interval
from pellucid.evaluate.record import Evaluation, TaskEvaluation, TextEvaluation, can_tell

CONTAMINATED = 0.05
"""Share of a text's spans in a model's training text above which its score on that text is not believed."""
WRONG = 0.05
"""How often a comparison may call a chance difference anything else, all of its verdicts together."""
_DRAWS_BEYOND = 40
_MOST_DRAWS = 50_000_000
"""Of units, all draws of a bootstrap together."""


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
        if not (self.interval.low > 0 or self.interval.high < 0):
            return None
        return self.second if (self.interval.high < 0) == self.lower_is_better else self.first

    def __str__(self) -> str:
        by = f"{_amount(self.interval)} {self.metric}"
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

    @property
    def level(self) -> float:
        """Of each difference's interval."""
        return self.differences[0].interval.level

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "level": self.level,
            "differences": [each.to_dict() for each in self.differences],
            "cautions": list(self.cautions),
        }


def compare(evaluations: Sequence[Evaluation], *, force: bool = False, seed: int = 0) -> Comparison:
    """The paired differences of all others from the first, over the texts and tasks that all have in common.

    Texts compare in bits per byte, whatever the tokenizers; tasks in each of their metrics. Documents (blocks, items)
    are resampled in pairs: what makes one hard for both models is no noise in their difference. All intervals are
    widened (Bonferroni), so that all verdicts together are wrong in no more than 5 % of comparisons. What would be
    unfair, and why, is in the DataError raised; `force` makes it a caution, and what cannot be paired is compared
    unpaired.
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
    found = [
        candidate
        for name, other in zip(names[1:], evaluations[1:], strict=True)
        for candidate in _candidates(evaluations[0], other, (names[0], name), seed)
    ]
    if not found:
        raise DataError(
            "there is nothing to compare:\n"
            + _listed(
                unfair
                or ["what they have in common is too little for an interval; name a longer text with --data"]
            )
        )
    level = 1 - WRONG / len(found)
    differences = tuple(each.about(each.measure(level)) for each in found)
    return Comparison(tuple(names), differences, tuple(dict.fromkeys((*unfair, *_cautions(evaluations)))))


def obstacles(first: Evaluation, second: Evaluation) -> list[str]:
    """Why two evaluations do not compare; empty where they do."""
    pairs = list(_text_pairs(first, second))
    lines = [line for a, b in pairs if (line := _mismatch(a, b, second.model)) is not None]
    lines += [line for evaluation in (first, second) for line in _twice(evaluation)]
    of_both = list(_task_pairs(first, second))
    for a, b in of_both:
        if a.file_sha256 != b.file_sha256:
            lines.append(f"{a.task}: {second.model} was measured on another file than {first.model}")
        elif a.items != b.items:
            lines.append(f"{a.task}: {second.model} has {b.items:,} items and {first.model} {a.items:,}")
        elif a.parts != b.parts:
            lines.append(f"{a.task}: {second.model} has other parts than {first.model}")
    if not pairs and not of_both:
        lines.append(f"{second.model} was measured on nothing that {first.model} was measured on")
    return lines


def _twice(evaluation: Evaluation) -> Iterator[str]:
    names = [task.task for task in evaluation.tasks]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name}: {evaluation.model} has {names.count(name)} tasks of this name; give each file its own"


def _task_pairs(first: Evaluation, second: Evaluation) -> Iterator[tuple[TaskEvaluation, TaskEvaluation]]:
    """Tasks of one name; of several, the first of each."""
    ours, theirs = ({task.task: task for task in reversed(each.tasks)} for each in (first, second))
    for name in dict.fromkeys(task.task for task in first.tasks):
        if name in theirs:
            yield ours[name], theirs[name]


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


@dataclass(frozen=True)
class _Candidate:
    """A difference whose interval waits until the number of them, and with it the level, is known."""

    measure: Callable[[float], Interval]
    about: Callable[[Interval], Difference]


def _candidates(a: Evaluation, b: Evaluation, names: tuple[str, str], seed: int) -> Iterator[_Candidate]:
    """All differences that can be told at all."""
    for ours, theirs in _text_pairs(a, b):
        if _has_units(ours) and _has_units(theirs):
            yield _of_texts(ours, theirs, names, seed)
    for task, other in _task_pairs(a, b):
        for metric in (name for name in task.metrics if name in other.metrics):
            if all(can_tell(each.metrics[metric], each.parts) for each in (task, other)):
                yield _of_tasks(task, other, metric, names, seed)


def _has_units(text: TextEvaluation) -> bool:
    return bool(np.count_nonzero(text.units.bytes) > 1 and np.isfinite(text.units.told).all())


def _of_texts(a: TextEvaluation, b: TextEvaluation, names: tuple[str, str], seed: int) -> _Candidate:
    (first, second), sizes = ([t.units.told / math.log(2) for t in (a, b)], [t.units.bytes for t in (a, b)])
    is_paired = _is_paired(a, b)

    def measure(level: float) -> Interval:
        draws = _draws(level, max(map(len, sizes)))
        if is_paired:
            return difference_interval(second - first, sizes[0], level=level, replicates=draws, seed=seed)
        ours, theirs = (
            ratio_interval(told, size, level=level, replicates=draws, seed=seed)
            for told, size in zip((first, second), sizes, strict=True)
        )
        return apart(ours, theirs)

    def about(interval: Interval) -> Difference:
        return Difference(
            a.data,
            "bits/byte",
            *names,
            interval,
            lower_is_better=True,
            units=a.counted_units,
            is_paired=is_paired,
        )

    return _Candidate(measure, about)


def _of_tasks(
    a: TaskEvaluation, b: TaskEvaluation, metric: str, names: tuple[str, str], seed: int
) -> _Candidate:
    is_paired = a.file_sha256 == b.file_sha256 and a.items == b.items and a.parts == b.parts
    is_loss = a.summaries[metric] == "perplexity"
    first, second = a.metrics[metric], b.metrics[metric]

    def measure(level: float) -> Interval:
        if is_paired:
            draws = _draws(level, a.items)
            return item_difference(first, second, a.parts, level=level, replicates=draws, seed=seed)
        return apart(item_interval(first, a.parts, level=level), item_interval(second, b.parts, level=level))

    def about(interval: Interval) -> Difference:
        return Difference(
            a.task,
            "nats an item" if is_loss else metric,
            *names,
            interval,
            lower_is_better=is_loss,
            units=f"{a.items:,} items" + (f" in {len(a.parts)} parts" if a.parts else ""),
            is_paired=is_paired,
        )

    return _Candidate(measure, about)


def _draws(level: float, units: int) -> int:
    """Draws of a bootstrap, of which enough lie beyond a quantile of this level."""
    return max(2000, min(math.ceil(_DRAWS_BEYOND / (1 - level)), _MOST_DRAWS // units))


def _amount(interval: Interval) -> str:
    """`0.0310 ± 0.0082`; `0.0310 [0.0228, 0.0419]` where it reaches farther to one side.

    Without the sign: in the direction of the better where one is.
    """
    value, low, high = interval.value, interval.low, interval.high
    if value < 0:
        value, low, high = -value, -high, -low
    half = interval.half
    digits = 4 if not 0 < half < 1e-3 else min(9, 1 - math.floor(math.log10(half)))
    is_even = abs(low + high - 2 * value) <= min(0.0005, 0.1 * half)
    if is_even and (value - half > 0) == (low > 0):  # else the half would tell another verdict
        return f"{value:.{digits}f} ± {half:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


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
        here, there = ({task.task for task in each.tasks} for each in (first, other))
        if alone := sorted(here ^ there):
            yield f"{', '.join(alone)}: measured of one of {first.model} and {other.model} only, and left out"
    for each in evaluations:
        for text in each.texts:
            if text.seen_in_training is None:
                yield (
                    f"{text.data}: not checked for {each.model} (its training text is not here to be read): whether "
                    "it was trained on this text"
                )
        yield from (f"{each.model}: {note}" for note in each.notes)
    yield "The intervals are over documents or items; what another seed of training would change is not in them."


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """What each is called; numbered where two have one name."""
    names = [evaluation.model for evaluation in evaluations]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names, start=1)]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in dict.fromkeys(lines))
