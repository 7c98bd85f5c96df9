"""Every task that comes along, beside lm-evaluation-harness's own description of it: the same numbers for each item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import checkpoint
from pellucid.config import from_tree, to_tree
from pellucid.evaluate.continuations import score_continuations
from pellucid.evaluate.tasks import built_in, parse_tasks
from pellucid.evaluate.tasks.run import evaluate_tasks
from pellucid.model import DecoderConfig
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.tokenizers import ByteTokenizer

harness = pytest.importorskip("lm_eval", reason="lm_eval is not installed: the extra `eval`")

ARC = [
    {
        "question": "Which one eats?",
        "choices": {"text": ["a fern", "a fox"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    {
        "question": "Ice is …?",
        "choices": {"text": ["hot", "wet, too", "cold"], "label": ["1", "2", "3"]},
        "answerKey": "1",
    },
]
OPEN_BOOK = [
    {
        "question_stem": "Rocks are",
        "choices": {"text": ["hard", "wet"], "label": ["A", "B"]},
        "answerKey": "A",
    },
    {
        "question_stem": "A fox eats ",
        "choices": {"text": ["snow", "an egg"], "label": ["A", "B"]},
        "answerKey": " A",
    },
]

RECORDS: Mapping[str, tuple[str, list[dict[str, Any]]]] = {
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        [
            {
                "activity_label": "Shaving",
                "ctx_a": "[header] How to shave [title] Wet it. [step] Use  water.",
                "ctx_b": "then he",
                "endings": [" sings [substeps] loudly.", "shaves."],
                "label": "1",
            },
            {"activity_label": "Cooking", "ctx_a": "A pan", "ctx_b": "", "endings": ["é", "x"], "label": "0"},
        ],
    ),
    "piqa": (
        "piqa/piqa.yaml",
        [
            {"goal": "Cut bread", "sol1": "Use a knife.", "sol2": "Use a spoon.", "label": 0},
            {"goal": "", "sol1": "Nothing", "sol2": "No", "label": 1},
        ],
    ),
    "arc_easy": ("arc/arc_easy.yaml", ARC),
    "arc_challenge": ("arc/arc_challenge.yaml", ARC),
    "openbookqa": ("openbookqa/openbookqa.yaml", OPEN_BOOK),
    "winogrande": (
        "winogrande/default.yaml",
        [
            {
                "sentence": "Ann thanked Eve, for _ had helped.",
                "option1": "Ann",
                "option2": "Eve",
                "answer": "2",
            },
            {
                "sentence": "_ is hot because it burns.",
                "option1": "The fire",
                "option2": "Ice",
                "answer": "1",
            },
        ],
    ),
    "copa": (
        "super_glue/copa/default.yaml",
        [
            {
                "premise": "It rained.",
                "choice1": "I got wet.",
                "choice2": "I sang.",
                "question": "effect",
                "label": 0,
            },
            {
                "premise": "I ran. ",
                "choice1": "A dog came.",
                "choice2": "I sat.",
                "question": "cause",
                "label": 0,
            },
        ],
    ),
    "boolq": (
        "super_glue/boolq/default.yaml",
        [
            {"passage": "Ice is cold.", "question": "is ice cold", "label": 1},
            {"passage": "Fire is hot.", "question": "is fire wet", "label": 0},
        ],
    ),
    "sciq": (
        "sciq/sciq.yaml",
        [
            {
                "support": "  Water boils.",
                "question": "What boils?",
                "distractor1": "stone",
                "distractor2": "wind",
                "distractor3": "a dog",
                "correct_answer": "water",
            },
            {
                "support": "",
                "question": "What burns?",
                "distractor1": "x",
                "distractor2": "y",
                "distractor3": "z",
                "correct_answer": "wood",
            },
        ],
    ),
    "lambada": (
        "lambada/lambada_openai.yaml",
        [{"text": "He said: “come in,” and came in"}, {"text": "one word and one more word"}],
    ),
    "blimp": (
        "blimp/adjunct_island.yaml",
        [
            {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."},
            {"sentence_good": "Who did he see?", "sentence_bad": "Who did he see the?"},
        ],
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    config = from_tree(DecoderConfig, {"vocab_size": 264, "d_model": 32, "num_heads": 2, "num_layers": 2})
    draw = torch.Generator().manual_seed(5)
    weights = {
        name: tensor.detach().normal_(std=0.3, generator=draw)
        for name, tensor in config.build().named_parameters()
    }
    path = tmp_path_factory.mktemp("model") / "checkpoint"
    checkpoint.save(path, checkpoint.Contents({"model": to_tree(config)}, weights, ByteTokenizer()))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A file of records for each task, and the harness's description of the task turned to that file."""
    folder, upstream = tmp_path_factory.mktemp("tasks"), Path(harness.__file__).parent / "tasks"
    for name, (description, records) in RECORDS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        splits = {"training_split": None, "validation_split": None, "test_split": "test"}
        source = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "datasets")}
        task = {"task": f"local_{name}", "dataset_path": "json", "dataset_name": None, **splits}
        task |= {"include": str(upstream / description), "dataset_kwargs": source}
        (folder / f"{name}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML, too
    return folder


@pytest.fixture(scope="module")
def theirs(files: Path, model: Path) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    import pellucid.evaluate.lm_eval as _registers  # noqa: F401

    return harness.simple_evaluate(
        "pellucid",
        {"pretrained": str(model), "device": "cpu"},
        tasks=[f"local_{name}" for name in RECORDS],
        task_manager=TaskManager(include_path=str(files), include_defaults=False),
        bootstrap_iters=0,
    )


@pytest.fixture(scope="module")
def ours(model: Path) -> tuple[Any, Any, Any]:
    loaded = checkpoint.load(model)
    return loaded.model, loaded.tokenizer, choose_precision("fp32", choose_device("cpu"))


def test_every_task_that_comes_along_is_compared():
    assert set(RECORDS) == set(built_in())


@pytest.mark.parametrize("name", RECORDS)
def test_prompts_log_probabilities_and_measures_are_the_same(
    name: str, files: Path, ours: tuple[Any, Any, Any], theirs: dict[str, Any]
):
    model, tokenizer, precision = ours
    samples = theirs["samples"][f"local_{name}"]
    (task,) = parse_tasks([f"{name}={files / name}.jsonl"])
    for item, sample in zip(task.items(), samples, strict=True):
        asked = [(request.context, request.continuation) for request in item.requests]
        assert asked == [tuple(pair) for pair in sample["arguments"]]
        found = score_continuations(model, tokenizer, item.requests, precision)
        logs = [each.log_probability for each in found]
        assert logs == pytest.approx([log for log, _ in sample["filtered_resps"]], rel=1e-6)
        assert [each.is_greedy for each in found] == [greedy for _, greedy in sample["filtered_resps"]]
    (measured,) = evaluate_tasks(model, tokenizer, [task], precision)
    for metric in {"acc", "acc_norm"} & set(samples[0]["metrics"]):
        assert measured.metrics[metric].tolist() == [sample[metric] for sample in samples]
    for metric in {"acc", "acc_norm", "perplexity"} & set(measured.metrics):
        whole = theirs["results"][f"local_{name}"][f"{metric},none"]
        assert measured.value(metric) == pytest.approx(whole, rel=1e-6)
