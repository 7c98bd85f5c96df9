"""The kinds of tasks, and the tasks that come along."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pellucid.config import from_union, nearest, read_toml
from pellucid.errors import ConfigError
from pellucid.evaluate.tasks.completion import CompletionTask
from pellucid.evaluate.tasks.fill_in import FillInTask
from pellucid.evaluate.tasks.multiple_choice import MultipleChoiceTask

Task = Annotated[MultipleChoiceTask | FillInTask | CompletionTask, Field(discriminator="kind")]
"""Any task's description, told apart by `kind`."""


def built_in() -> list[str]:
    """The names of the tasks that come along, sorted."""
    files = resources.files("pellucid.evaluate.tasks").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def open_task(name: str) -> Task:
    """The description of a task that comes along, or of a .toml file. Raises ConfigError for any other name."""
    if name.endswith(".toml"):
        return from_union(Task, read_toml(Path(name)), where=name)
    known = built_in()
    if name not in known:
        raise ConfigError(
            f"there is no task {name!r}{nearest(name, known)} (tasks: {', '.join(known)}; or the path of a .toml file "
            "that describes one)"
        )
    file = resources.files("pellucid.evaluate.tasks") / f"{name}.toml"
    return from_union(Task, tomllib.loads(file.read_text(encoding="utf-8")), where=file.name)
