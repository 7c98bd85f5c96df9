import io

import numpy as np
from rich.console import Console

from pellucid.evaluate.record import TaskEvaluation
from pellucid.report.task_scores import print_tasks

PIQA = TaskEvaluation(
    "piqa",
    "0" * 64,
    {"acc": np.array([1.0, 0, 1, 1]), "acc_norm": np.array([1.0, 0, 0, 1])},
    {"acc": "mean", "acc_norm": "mean"},
    {"acc": 0.5, "acc_norm": 0.5},
    truncated=2,
)
LAMBADA = TaskEvaluation(
    "lambada", "0" * 64, {"perplexity": np.array([np.log(30.0)])}, {"perplexity": "perplexity"}
)


def test_a_row_a_metric_with_its_interval_and_chance():
    file = io.StringIO()
    print_tasks([PIQA, LAMBADA], Console(file=file, width=120))
    lines = [line.split() for line in file.getvalue().splitlines()]
    interval = PIQA.interval("acc")
    assert interval is not None
    assert lines[1] == [
        "piqa",
        "4",
        "acc",
        "0.750",
        f"{interval.low:.3f}",
        "–",
        f"{interval.high:.3f}",
        "0.500",
    ]
    assert lines[2][:2] == ["acc_norm", "0.500"]
    assert lines[3] == ["lambada", "1", "perplexity", "30.0", "too", "few", "items", "–"]
    assert " ".join(lines[4]).startswith("piqa: 2 of 4 items are longer than the model's window")


def test_a_summary_has_the_numbers_without_the_items():
    interval = PIQA.interval("acc")
    assert interval is not None
    assert PIQA.summary() == {
        "task": "piqa",
        "items": 4,
        "truncated": 2,
        "metrics": {
            "acc": {"value": 0.75, "interval": [interval.low, interval.high], "chance": 0.5},
            "acc_norm": {
                "value": 0.5,
                "interval": [PIQA.interval("acc_norm").low, PIQA.interval("acc_norm").high],
                "chance": 0.5,
            },
        },
        "file_sha256": "0" * 64,
    }
    assert LAMBADA.summary()["metrics"]["perplexity"]["interval"] is None


def test_what_is_kept_comes_back():
    back = TaskEvaluation.from_dict(PIQA.to_dict())
    assert back.to_dict() == PIQA.to_dict()
    assert (back.chance, back.truncated) == ({"acc": 0.5, "acc_norm": 0.5}, 2)
