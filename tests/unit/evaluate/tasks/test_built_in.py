"""The tasks that come along: their prompts, written out as lm-evaluation-harness 0.4.13 makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.evaluate.tasks import NamedTask, built_in, open_task

ARC = {"text": ["a plant", "a fox"], "label": ["A", "B"]}
ARC_LIST = [{"text": "a plant", "label": "1"}, {"text": "a fox", "label": "2"}]
SCIENCE = "Question: Which one eats?\nAnswer:"

RECORDS: list[tuple[str, dict[str, Any], list[tuple[str, str]], int]] = [
    (
        "hellaswag",
        {
            "activity_label": "Shaving",
            "ctx_a": "[header] How to shave [title] Wet it. [step] Use  water.",
            "ctx_b": "then he",
            "ctx": "not this",
            "endings": [" sings [substeps] loudly.", "shaves."],
            "label": "1",
        },
        [
            ("Shaving: How to shave. Wet it. Use water. Then he", " sings loudly."),
            ("Shaving: How to shave. Wet it. Use water. Then he", " shaves."),
        ],
        1,
    ),
    (
        "piqa",
        {"goal": "Cut bread", "sol1": "Use a knife.", "sol2": "Use a spoon.", "label": 0},
        [
            ("Question: Cut bread\nAnswer:", " Use a knife."),
            ("Question: Cut bread\nAnswer:", " Use a spoon."),
        ],
        0,
    ),
    (
        "arc_easy",
        {"question": "Which one eats?", "choices": ARC, "answerKey": "B"},
        [(SCIENCE, " a plant"), (SCIENCE, " a fox")],
        1,
    ),
    (
        "arc_challenge",
        {"question": {"stem": "Which one eats?", "choices": ARC_LIST}, "answerKey": "2"},
        [(SCIENCE, " a plant"), (SCIENCE, " a fox")],
        1,
    ),
    (
        "openbookqa",
        {
            "question_stem": "Rocks are",
            "choices": {"text": ["hard", "wet"], "label": ["A", "B"]},
            "answerKey": "A ",
        },
        [("Rocks are", " hard"), ("Rocks are", " wet")],
        0,
    ),
    (
        "openbookqa",
        {
            "question": {
                "stem": "Rocks are",
                "choices": [{"text": "hard", "label": "A"}, {"text": "wet", "label": "B"}],
            },
            "answerKey": "B",
        },
        [("Rocks are", " hard"), ("Rocks are", " wet")],
        1,
    ),
    (
        "winogrande",
        {"sentence": "Ann thanked Eve, for _ had helped.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        [("Ann thanked Eve, for Ann", " had helped."), ("Ann thanked Eve, for Eve", " had helped.")],
        1,
    ),
    (
        "copa",
        {
            "premise": "It rained. ",
            "choice1": "I got wet.",
            "choice2": "I sang.",
            "question": "effect",
            "label": 0,
        },
        [("It rained therefore", "  i got wet."), ("It rained therefore", "  i sang.")],
        0,
    ),
    (
        "boolq",
        {"passage": "Ice is cold.", "question": "is ice cold", "answer": True},
        [
            ("Ice is cold.\nQuestion: is ice cold?\nAnswer:", " no"),
            ("Ice is cold.\nQuestion: is ice cold?\nAnswer:", " yes"),
        ],
        1,
    ),
    ("lambada", {"text": "He said: “come in,” and came in"}, [("He said: “come in,” and came", " in")], 0),
    (
        "blimp",
        {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps.", "UID": "agreement"},
        [("", " Cats sleep."), ("", " Cats sleeps.")],
        0,
    ),
    (
        "sciq",
        {
            "support": "  Water boils.",
            "question": "What boils?",
            "distractor1": "x",
            "distractor2": "y",
            "distractor3": "z",
            "correct_answer": "water",
        },
        [
            (" Water boils.".lstrip() + "\nQuestion: What boils?\nAnswer:", f" {end}")
            for end in ("x", "y", "z", "water")
        ],
        3,
    ),
]


def test_every_task_that_comes_along_is_tried_here():
    assert {name for name, *_ in RECORDS} == set(built_in())


@pytest.mark.parametrize(("name", "record", "requests", "answer"), RECORDS)
def test_prompts_are_those_of_the_harness(
    name: str, record: dict[str, Any], requests: list[tuple[str, str]], answer: int, tmp_path: Path
):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    (item,) = NamedTask(name, open_task(name), path).items()
    assert [(request.context, request.continuation) for request in item.requests] == requests
    assert item.answer == answer
