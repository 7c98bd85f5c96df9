"""Tasks put to a model, all of their requests in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import DataError, TokenizerError
from pellucid.evaluate.continuations import Progress, encode, score_encoded
from pellucid.evaluate.record import TaskEvaluation
from pellucid.evaluate.requests import Scored
from pellucid.evaluate.rows import Encoded
from pellucid.evaluate.tasks.base import Item
from pellucid.evaluate.tasks.named import NamedTask
from pellucid.model.interface import LanguageModel
from pellucid.runtime.files import sha256_file
from pellucid.runtime.precision import Precision
from pellucid.tokenizers import Tokenizer


def evaluate_tasks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    tasks: Sequence[NamedTask],
    precision: Precision,
    *,
    limit: int | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> tuple[TaskEvaluation, ...]:
    """What a model scores on each task. A folder is followed by its files, and is their plain average.

    limit: so many first items of each file. Raises DataError that names the file, and the line of a faulty record,
    before anything is scored.
    """
    files = [[_File(part, part.items(limit)) for part in task.parts()] for task in tasks]
    is_source = not model.continues_prompt
    requests = [each for parts in files for file in parts for each in file.encoded(tokenizer, is_source)]
    scored = iter(score_encoded(model, requests, precision, batch_tokens=batch_tokens, progress=progress))
    found: list[TaskEvaluation] = []
    for task, parts in zip(tasks, files, strict=True):
        measured = [
            file.evaluate([[next(scored) for _ in item.requests] for item in file.items]) for file in parts
        ]
        found += [_average(task, measured), *measured] if task.path.is_dir() else measured
    return tuple(found)


@dataclass(frozen=True)
class _File:
    task: NamedTask
    items: Sequence[Item]

    def encoded(self, tokenizer: Tokenizer, is_source: bool) -> Iterator[Encoded]:
        """The requests of all items as ids. Raises DataError that names the line of one that has none."""
        for item in self.items:
            try:
                yield from encode(tokenizer, item.requests, is_source=is_source)
            except (TokenizerError, DataError) as error:
                raise DataError(f"{item.where}: {error} (task {self.task.name})") from None

    def evaluate(self, scored: Sequence[Sequence[Scored]]) -> TaskEvaluation:
        task = self.task.task
        measures = [task.measure(item, of_item) for item, of_item in zip(self.items, scored, strict=True)]
        return TaskEvaluation(
            self.task.name,
            sha256_file(self.task.path),
            {name: np.array([measure[name] for measure in measures]) for name in task.summaries},
            task.summaries,
            task.chance(self.items),
            sum(any(each.truncated for each in of_item) for of_item in scored),
        )


def _average(task: NamedTask, parts: Sequence[TaskEvaluation]) -> TaskEvaluation:
    """All items of all parts, and how many each part has."""
    first = parts[0]
    return TaskEvaluation(
        task.name,
        hashlib.sha256("".join(part.file_sha256 for part in parts).encode()).hexdigest(),
        {name: np.concatenate([part.metrics[name] for part in parts]) for name in first.metrics},
        first.summaries,
        {name: float(np.mean([part.chance[name] for part in parts])) for name in first.chance},
        sum(part.truncated for part in parts),
        tuple(part.items for part in parts),
    )
