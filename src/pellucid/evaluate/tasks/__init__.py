"""What a model knows, asked as continuations: a task is a small file that says how records become requests.

    multiple_choice   the likeliest of several continuations of a context: HellaSwag, PIQA, ARC, BLiMP, …
    fill_in           the likeliest of several beginnings of an ending: WinoGrande
    completion        the one right continuation: LAMBADA

`Task` is the union of all kinds, and the only list of them. The tasks that come along are the .toml files beside this
one; a user's own is a file of the same form. No torch, but for `evaluate_tasks` in `tasks.run`.
"""

from pellucid.evaluate.tasks.base import Item
from pellucid.evaluate.tasks.catalogue import Task, built_in, open_task
from pellucid.evaluate.tasks.completion import CompletionTask
from pellucid.evaluate.tasks.fill_in import FillInTask
from pellucid.evaluate.tasks.multiple_choice import MultipleChoiceTask
from pellucid.evaluate.tasks.named import NamedTask, parse_tasks

__all__ = [
    "CompletionTask",
    "FillInTask",
    "Item",
    "MultipleChoiceTask",
    "NamedTask",
    "Task",
    "built_in",
    "open_task",
    "parse_tasks",
]
