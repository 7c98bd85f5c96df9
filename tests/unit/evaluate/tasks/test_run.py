"""Tasks of a tiny model against scores computed one at a time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError, DataError
from pellucid.evaluate.record import TaskEvaluation
from pellucid.evaluate.tasks import MultipleChoiceTask, NamedTask, open_task, parse_tasks
from pellucid.evaluate.tasks.run import evaluate_tasks
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import choose_precision
from pellucid.tokenizers import ByteTokenizer, Tokenizer
from pellucid.tokenizers.char import CharTokenizer

FP32 = choose_precision(
    "fp32", Device("cpu", "for a test", has_bf16=True, can_compile=False, compile_reason="")
)
TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def model() -> DecoderLM:
    config = {"vocab_size": 257, "d_model": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": 128}
    built = DecoderConfig(**config).build(seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return built.double()


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def log_p(model: DecoderLM, context: str, continuation: str) -> tuple[float, bool]:
    before, after = list(context.encode()) or [256], list(continuation.encode())
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[*before, *after]]))[0, len(before) - 1 : -1]
    logs = logits.log_softmax(dim=-1)[range(len(after)), after]
    return logs.sum().item(), logits.argmax(dim=-1).tolist() == after


CHOICES = [
    {"goal": f"goal {n}", "sol1": "a" * (n % 3 + 1), "sol2": "some other é", "label": n % 2} for n in range(8)
]
PASSAGES = [
    {"text": f"a passage number {n} and its last {word}"} for n, word in enumerate(["word", "x", "é"])
]
PAIRS = [{"sentence_good": f"Cats {n} sleep.", "sentence_bad": f"Cats {n} sleeps."} for n in range(5)]


def by_task(found: Sequence[TaskEvaluation]) -> dict[str, TaskEvaluation]:
    return {each.task: each for each in found}


def test_every_kind_in_one_pass(model: DecoderLM, tmp_path: Path):
    sentences = [
        {
            "sentence": f"Ann saw Eve {n} when _ came.",
            "option1": "Ann",
            "option2": "Eve",
            "answer": str(n % 2 + 1),
        }
        for n in range(5)
    ]
    tasks = parse_tasks(
        [
            f"piqa={write(tmp_path / 'p.jsonl', CHOICES)},lambada={write(tmp_path / 'l.jsonl', PASSAGES)}",
            f"winogrande={write(tmp_path / 'w.jsonl', sentences)}",
        ]
    )
    found = by_task(evaluate_tasks(model, TOKENIZER, tasks, FP32))
    assert list(found) == ["piqa", "lambada", "winogrande"]

    for number, record in enumerate(CHOICES):
        logs = [
            log_p(model, f"Question: {record['goal']}\nAnswer:", f" {record[key]}")[0]
            for key in ("sol1", "sol2")
        ]
        by_length = [log / len(record[key]) for log, key in zip(logs, ("sol1", "sol2"), strict=True)]
        assert found["piqa"].metrics["acc"][number] == (np.argmax(logs) == record["label"])
        assert found["piqa"].metrics["acc_norm"][number] == (np.argmax(by_length) == record["label"])
    assert found["piqa"].chance == {"acc": 0.5, "acc_norm": 0.5}

    wanted = [
        log_p(model, *record["text"].rsplit(" ", 1)[:1], f" {record['text'].split()[-1]}")
        for record in PASSAGES
    ]
    assert found["lambada"].metrics["perplexity"] == pytest.approx([-log for log, _ in wanted])
    assert found["lambada"].metrics["acc"].tolist() == [float(greedy) for _, greedy in wanted]
    assert found["lambada"].value("perplexity") == pytest.approx(np.exp(-np.mean([log for log, _ in wanted])))
    assert found["lambada"].chance == {}

    for number, record in enumerate(sentences):
        logs = [log_p(model, f"Ann saw Eve {number} when {name}", " came.")[0] for name in ("Ann", "Eve")]
        assert found["winogrande"].metrics["acc"][number] == (np.argmax(logs) == int(record["answer"]) - 1)


def test_choices_may_differ_in_number(model: DecoderLM, tmp_path: Path):
    records = [
        {
            "question": "q",
            "choices": {"text": list("abcde")[:count], "label": list("ABCDE")[:count]},
            "answerKey": "A",
        }
        for count in (2, 4, 5)
    ]
    (found,) = evaluate_tasks(
        model, TOKENIZER, parse_tasks([f"arc_easy={write(tmp_path / 'a.jsonl', records)}"]), FP32
    )
    assert found.items == 3
    assert found.chance["acc"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)


def test_a_folder_is_the_plain_average_of_its_files(model: DecoderLM, tmp_path: Path):
    write(tmp_path / "many.jsonl", PAIRS)
    write(
        tmp_path / "few.jsonl",
        [dict(reversed(list(zip(pair, reversed(pair.values()), strict=True)))) for pair in PAIRS[:2]],
    )
    (tmp_path / "README.md").write_text("no records", encoding="utf-8")
    whole, few, many = evaluate_tasks(model, TOKENIZER, parse_tasks([f"blimp={tmp_path}"]), FP32)
    assert [whole.task, few.task, many.task] == ["blimp", "blimp/few", "blimp/many"]
    assert whole.items == 7
    assert whole.value("acc") == pytest.approx((few.value("acc") + many.value("acc")) / 2)
    assert whole.parts == (2, 5)
    assert whole.metrics["acc"].tolist() == [
        *few.metrics["acc"],
        *many.metrics["acc"],
    ]  # of items, unweighted
    assert few.metrics["acc"].tolist() == [1 - x for x in many.metrics["acc"][:2].tolist()]
    for pair, right in zip(PAIRS, many.metrics["acc"], strict=True):
        good, bad = (log_p(model, "", f" {pair[key]}")[0] for key in ("sentence_good", "sentence_bad"))
        assert right == (good > bad)


def test_a_folders_tasks_are_named_by_their_files_and_hidden_ones_passed_over(tmp_path: Path):
    for name in ("a.x.jsonl", "a.y.JSONL.gz", "b.parquet", ".x.jsonl", "._a.x.jsonl", "b.txt"):
        (tmp_path / name).write_bytes(b"")
    parts = NamedTask("lambada", open_task("lambada"), tmp_path).parts()
    assert [(part.name, part.path.name) for part in parts] == [
        ("lambada/a.x", "a.x.jsonl"),
        ("lambada/a.y", "a.y.JSONL.gz"),
        ("lambada/b", "b.parquet"),
    ]


def test_only_so_many_first_items(model: DecoderLM, tmp_path: Path):
    tasks = parse_tasks([f"piqa={write(tmp_path / 'p.jsonl', CHOICES)}"])
    (whole,) = evaluate_tasks(model, TOKENIZER, tasks, FP32)
    (first,) = evaluate_tasks(model, TOKENIZER, tasks, FP32, limit=3)
    assert first.metrics["acc"].tolist() == whole.metrics["acc"].tolist()[:3]


def test_items_that_do_not_fit_the_window_are_counted(model: DecoderLM, tmp_path: Path):
    long = {"goal": "x" * 500, "sol1": "a", "sol2": "b", "label": 0}
    (found,) = evaluate_tasks(
        model, TOKENIZER, parse_tasks([f"piqa={write(tmp_path / 'p.jsonl', [*CHOICES, long, long])}"]), FP32
    )
    assert (found.items, found.truncated) == (10, 2)


MINE = """
kind = "multiple_choice"
context = "{ask}"
choices = "options"
label = "right"
metrics = ["acc"]
"""


def test_a_task_of_ones_own_is_one_file(model: DecoderLM, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    records = [{"ask": "what?", "options": ["a", "bb", "c"], "right": "C"}]
    tasks = parse_tasks([f"{tmp_path / 'mine.toml'}={write(tmp_path / 'm.jsonl', records)}"])
    (found,) = evaluate_tasks(model, TOKENIZER, tasks, FP32)
    logs = [log_p(model, "what?", f" {choice}")[0] for choice in ("a", "bb", "c")]
    assert found.task == "mine"
    assert found.metrics["acc"].tolist() == [float(np.argmax(logs) == 2)]


def test_compressed_files_and_parquet_hold_the_same(model: DecoderLM, tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    zstandard = pytest.importorskip("zstandard")
    plain = write(tmp_path / "a.jsonl", CHOICES)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(CHOICES), tmp_path / "a.parquet")
    task = open_task("piqa")
    wanted = NamedTask("piqa", task, plain).items()
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        assert NamedTask("piqa", task, tmp_path / name).items() == wanted


# Bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"goal": "x", ', r"line 2: not JSON: .* at column \d+; correct or remove it"),
        ('["a"]', r"line 2: wanted a JSON object, not '\[\"a\"\]'"),
        (
            '{"gaol": "x", "sol1": "a", "sol2": "b", "label": 0}',
            r"line 2: there is no field 'goal' \(fields: gaol, sol1, .*\); did you mean 'gaol'\? \(task piqa\)",
        ),
        (
            '{"goal": "x", "sol1": "a", "sol2": "b", "label": 2}',
            r"line 2: the label 2 means none of the 2 choices \(0 to 1\) \(task piqa\)",
        ),
        ('{"goal": "x", "sol1": "a", "sol2": "b", "label": -1}', "line 2: the label -1 means none"),
        ('{"goal": "x", "sol1": "a", "sol2": "b"}', "line 2: there is no field 'label'"),
        ('{"goal": "x", "sol1": "", "sol2": "b", "label": 0}', "line 2: choice 0 is empty"),
        ('{"goal": "x", "sol1": null, "sol2": "b", "label": 0}', "line 2: field 'sol1' holds None, not text"),
    ],
)
def test_a_faulty_line_is_named(line: str, message: str, tmp_path: Path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(CHOICES[0]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.jsonl, " + message):
        NamedTask("piqa", open_task("piqa"), path).items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no records; task piqa needs at least one"),
        (b"\n \n", "has no records"),
        (b'{"goal": "x"}\n\xff\xfe', "line 2: not UTF-8"),
    ],
)
def test_a_faulty_file_is_named(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"p\.jsonl(:|,) .*{message}"):
        NamedTask("piqa", open_task("piqa"), path).items()


def test_files_that_are_none_of_a_task(tmp_path: Path):
    task = open_task("piqa")
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be read: No such file"):
        NamedTask("piqa", task, tmp_path / "absent.jsonl").items()
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt: a task's file is \.jsonl"):
        NamedTask("piqa", task, tmp_path / "a.txt").items()
    with pytest.raises(DataError, match=r"has no \.jsonl or \.parquet file"):
        NamedTask("piqa", task, tmp_path).parts()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"a\.parquet: broken or truncated Parquet"):
        NamedTask("piqa", task, tmp_path / "a.parquet").items()


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    for name in ("a.jsonl", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"a\.jsonl and a\.jsonl\.gz would both be piqa/a; remove or rename one"
    ):
        NamedTask("piqa", open_task("piqa"), tmp_path).parts()


class Deaf(ByteTokenizer):
    """Makes no ids of é, as a tokenizer with a normalizer may do."""

    def encode(self, text, *, allow_special=False):
        return super().encode(text.replace("é", ""), allow_special=allow_special)


@pytest.mark.parametrize(
    ("tokenizer", "fault", "message"),
    [
        (TOKENIZER, "a\ud83d", r"byte: character 4 of the text is U\+D83D, half of a surrogate pair.*"),
        (CharTokenizer("why?abc"), "z", "char: .*'z'.*"),
        (Deaf(), "é", "request 2: the tokenizer makes no ids of the continuation; there is nothing to score"),
    ],
)
@pytest.mark.parametrize("name", ["own", "own/set"])
def test_text_without_ids_is_told_with_its_line_before_anything_is_scored(
    model: DecoderLM, tmp_path: Path, name: str, tokenizer: Tokenizer, fault: str, message: str
):
    lists = [["a", "b"], ["b", "c"], ["a", "b", fault, "c"]]
    path = write(tmp_path / "set.jsonl", [{"ask": "why", "options": options} for options in lists])
    task = MultipleChoiceTask(context="{ask}", choices="options", label=0, separator="")
    with pytest.raises(DataError, match=rf"set\.jsonl, line 3: {message} \(task {name}\)$"):
        evaluate_tasks(
            model,
            tokenizer,
            [NamedTask("own", task, path if name == "own" else tmp_path)],
            FP32,
            progress=lambda *_: pytest.fail("something is scored"),
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["helaswag=a.jsonl"],
            r"no task 'helaswag'; did you mean 'hellaswag'\? \(tasks: arc_challenge, .*\.toml",
        ),
        (["piqa"], "--tasks piqa: name its file too, --tasks piqa=FILE"),
        (["piqa="], "name its file too"),
        (["piqa=a.jsonl,piqa=b.jsonl"], "--tasks names piqa 2 times"),
        (["absent.toml=a.jsonl"], r"absent\.toml: no such config file"),
    ],
)
def test_words_that_name_no_task(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        parse_tasks(words)


def test_a_path_may_have_commas_and_equals_signs():
    (task, other) = parse_tasks(["piqa=a,b/c.jsonl,lambada=d.jsonl"])
    assert (task.path, other.path) == (Path("a,b/c.jsonl"), Path("d.jsonl"))


def test_a_description_of_no_kind(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('kind = "multiple_chioce"', encoding="utf-8")
    with pytest.raises(ConfigError, match="no kind 'multiple_chioce'; did you mean 'multiple_choice'"):
        open_task(str(tmp_path / "mine.toml"))
