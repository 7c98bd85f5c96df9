"""A task and the file or folder that its records lie in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pellucid.errors import ConfigError, DataError
from pellucid.evaluate.tasks.base import Item
from pellucid.evaluate.tasks.catalogue import Task, open_task
from pellucid.evaluate.tasks.records import kind_of_records, records


@dataclass(frozen=True)
class NamedTask:
    """A task under the name that it is reported by."""

    name: str
    task: Task
    path: Path
    """A file; or a folder, of which each file is a task of its own."""

    def parts(self) -> list[NamedTask]:
        """The tasks of a folder's files, by name; of a file, itself alone. Hidden files are passed over.

        Raises DataError for a folder without files of records, and for two whose names differ in the suffix alone.
        """
        if not self.path.is_dir():
            return [self]
        files: dict[str, Path] = {}
        for file in sorted(self.path.iterdir()):
            kind = kind_of_records(file)
            if kind is None or file.name.startswith("."):
                continue
            name = file.name[: -len(kind.suffix + (kind.compression or ""))]
            if name in files:
                raise DataError(
                    f"{self.path}: {files[name].name} and {file.name} would both be {self.name}/{name}; remove or "
                    "rename one"
                )
            files[name] = file
        if not files:
            raise DataError(f"{self.path}: has no .jsonl or .parquet file; name the folder that has them")
        return [NamedTask(f"{self.name}/{name}", self.task, file) for name, file in files.items()]

    def items(self, limit: int | None = None) -> list[Item]:
        """The items of a file, or so many first ones. Raises DataError that names the line of a faulty one."""
        items = list(islice(self._items(), limit))
        if not items:
            raise DataError(f"{self.path}: has no records; task {self.name} needs at least one")
        return items

    def _items(self) -> Iterator[Item]:
        for where, record in records(self.path):
            try:
                yield replace(self.task.item(record), where=where)
            except DataError as error:
                raise DataError(f"{where}: {error} (task {self.name})") from None


def parse_tasks(words: Iterable[str]) -> list[NamedTask]:
    """Words such as `hellaswag=FILE,mine.toml=FILE`. Raises ConfigError for what names no task or no file."""
    tasks: list[NamedTask] = []
    for word in words:
        for part in re.split(r",(?=[^,=]+=)", word):
            name, has_file, path = part.partition("=")
            task = open_task(name)
            if not (has_file and path):
                raise ConfigError(f"--tasks {part}: name its file too, --tasks {name}=FILE")
            tasks.append(NamedTask(Path(name).stem if name.endswith(".toml") else name, task, Path(path)))
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"--tasks names {name} {names.count(name)} times; put the files of one task into one folder, and name "
                "that"
            )
    return tasks
