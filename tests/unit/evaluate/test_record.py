"""Evaluations as files: what is written is what is read, and damage is named."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid.errors import DataError, StorageError
from pellucid.evaluate.bootstrap import ratio_interval
from pellucid.evaluate.record import (
    Evaluation,
    TaskEvaluation,
    TextEvaluation,
    UnitScores,
    difference_or_none,
    interval_or_none,
)


def units(count: int = 30, *, marks: bool = False) -> UnitScores:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 50, count)
    losses = rng.gamma(tokens) * 2.5
    domains = tuple("prose" if i % 3 else "code" for i in range(count))
    return UnitScores(losses, tokens, tokens * 4 + 1, domains, losses / 10 if marks else None)


def text(**changes) -> TextEvaluation:
    values = {
        "data": "a.txt",
        "text_sha256": "ab",
        "tokenizer": "cd",
        "unit": "document",
        "window": 8,
        "stride": 4,
    }
    return TextEvaluation(**{**values, "units": units(), **changes})


def task() -> TaskEvaluation:
    right = np.array([1.0, 0.0, 1.0, 1.0])
    metrics = {"acc": right, "nll": np.array([0.1, 1 / 3, 2.0, 1e-9])}
    return TaskEvaluation("lambada", "ef", metrics, {"acc": "mean", "nll": "perplexity"})


def evaluation() -> Evaluation:
    return Evaluation(
        "runs/a",
        "12",
        1000,
        "fp32",
        "",
        (text(), text(units=units(marks=True))),
        (task(),),
        "2025-01-01",
        ("so",),
    )


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    evaluation().write(tmp_path / "deep" / "val.json")
    found = Evaluation.read(tmp_path / "deep" / "val.json")
    assert found.to_dict() == evaluation().to_dict()
    assert np.array_equal(found.texts[0].units.losses, units().losses)  # to the bit
    assert found.texts[0].units.losses.dtype == np.float64
    assert found.texts[0].units.tokens.dtype == np.int64
    assert found.texts[1].bits_per_byte == evaluation().texts[1].bits_per_byte
    assert found.tasks[0].value("nll") == task().value("nll")


def test_a_text_by_hand() -> None:
    one = text(units=UnitScores(np.array([4.0, 2.0]), np.array([3, 1]), np.array([5, 3])))
    assert (one.tokens, one.bytes) == (4, 8)
    assert one.loss == 1.5
    assert one.perplexity == pytest.approx(math.exp(1.5))
    assert one.bits_per_byte == pytest.approx(6 / math.log(2) / 8)
    assert one.domains == ()


def test_intervals_are_over_units() -> None:
    one = text()
    assert one.loss_interval == ratio_interval(one.units.losses, one.units.tokens)
    assert one.bits_per_byte_interval == ratio_interval(one.units.losses / math.log(2), one.units.bytes)
    found = one.perplexity_interval
    assert found is not None
    assert found.low == pytest.approx(math.exp(one.loss_interval.low))
    assert found.high == pytest.approx(math.exp(one.loss_interval.high))


def test_one_unit_has_no_interval() -> None:
    one = text(units=UnitScores(np.array([4.0]), np.array([3]), np.array([5])))
    assert one.loss_interval is one.perplexity_interval is one.bits_per_byte_interval is None
    diverged = text(units=UnitScores(np.array([4.0, math.nan]), np.array([3, 2]), np.array([5, 2])))
    assert diverged.loss_interval is None
    assert math.isnan(diverged.loss)


def test_marks_are_in_the_loss_and_not_in_bits_per_byte() -> None:
    plain, marked = text(), text(units=units(marks=True))
    assert marked.loss == plain.loss
    assert marked.bits_per_byte == pytest.approx(0.9 * plain.bits_per_byte)


def test_a_domain_is_its_units_alone() -> None:
    one = text(units=units(marks=True))
    assert one.domains == ("code", "prose")
    code, prose = (one.of_domain(name) for name in one.domains)
    assert code.data == "a.txt: code"
    assert len(code.units) == 10
    assert code.bytes + prose.bytes == one.bytes
    assert np.array_equal(code.units.losses, one.units.losses[::3])
    assert code.loss * code.tokens + prose.loss * prose.tokens == pytest.approx(one.loss * one.tokens)


def test_a_task_by_hand() -> None:
    one = task()
    assert one.items == 4
    assert one.value("acc") == 0.75
    assert one.value("nll") == pytest.approx(math.exp((0.1 + 1 / 3 + 2 + 1e-9) / 4))
    assert one.interval("acc") == ratio_interval([1, 0, 1, 1], [1, 1, 1, 1])
    found = one.interval("nll")
    assert found is not None
    assert found.low < one.value("nll") == found.value < found.high


def test_lists_of_unequal_length() -> None:
    with pytest.raises(DataError, match=r"equal length, not of \[1, 2\]"):
        UnitScores(np.zeros(2), np.zeros(1, np.int64), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="lambada: metrics want lists of equal length and a summary each"):
        TaskEvaluation("lambada", "ef", {"acc": np.zeros(2)}, {})
    with pytest.raises(DataError, match="there is no summary 'median'"):
        TaskEvaluation("lambada", "ef", {"acc": np.zeros(2)}, {"acc": "median"})


def damaged(change) -> str:
    tree = evaluation().to_dict()
    change(tree)
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "altered or truncated"),
        ('{"format_version": 1, "model": "a"', "altered or truncated"),
        ("[]", "holds no evaluation; pellucid evaluate writes one with --out FILE"),
        ("{}", "an evaluation of format None; this version of Pellucid reads 1"),
        (damaged(lambda t: t.update(format_version=2)), "of format 2"),
        (damaged(lambda t: t.pop("weights_sha256")), "'weights_sha256' is not there"),
        (damaged(lambda t: t["texts"][0]["losses"].pop()), r"equal length, not of \[29, 30\]"),
        (damaged(lambda t: t["texts"][0].update(losses=["a"] * 30)), "could not convert"),
        (damaged(lambda t: t.update(texts=[3])), "altered or truncated"),
        (damaged(lambda t: t["tasks"][0].update(metrics=[1])), "altered or truncated"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "val.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        Evaluation.read(file)
    assert str(error.value).startswith(f"{file}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: no such file"):
        Evaluation.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read: is a directory"):
        Evaluation.read(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        evaluation().write(tmp_path / "file" / "val.json")


def test_reading_and_comparing_need_no_torch() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch cannot be imported here")
sys.meta_path.insert(0, Block())
import pellucid.evaluate.bootstrap, pellucid.evaluate.record, pellucid.evaluate.student
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def folder(sizes: tuple[int, ...], right: list[float]) -> TaskEvaluation:
    return TaskEvaluation("blimp", "ef", {"acc": np.array(right)}, {"acc": "mean"}, parts=sizes)


def test_a_folder_is_the_average_of_its_parts_between_0_and_1() -> None:
    one = folder((2, 8), [1.0, 0.0] + [1.0] * 8)
    assert one.value("acc") == 0.75
    found = one.interval("acc")
    assert found is not None
    assert 0 <= found.low < 0.75 == found.value < found.high <= 1
    all_right = folder((20, 60, 60), [1.0] * 140).interval("acc")
    assert all_right is not None
    assert all_right.high == 1.0
    assert 0.9 < all_right.low < 1
    again = TaskEvaluation.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.parts == (2, 8)
    assert again.interval("acc") == found
    with pytest.raises(DataError, match="do not make"):
        folder((2, 3), [1.0] * 4)


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    lost = text(
        units=UnitScores(np.array([4.0, math.inf, math.nan]), np.array([3, 2, 2]), np.array([5, 2, 2]))
    )
    Evaluation("runs/a", "12", 1000, "fp32", "", (lost,), (task(),)).write(tmp_path / "a.json")
    tree = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert tree["texts"][0]["losses"] == [4.0, None, None]
    assert np.array_equal(
        Evaluation.read(tmp_path / "a.json").texts[0].units.losses, [4.0, math.nan, math.nan], equal_nan=True
    )


def test_a_difference_is_no_score() -> None:
    """Wilson's interval of a share never holds 0; one item of 40 proves nothing about a difference."""
    one_of_40 = np.array([1.0] + [0.0] * 39)
    score, difference = interval_or_none(one_of_40, np.ones(40)), difference_or_none(one_of_40, np.ones(40))
    assert score is not None
    assert difference is not None
    assert difference.low < 0 < score.low
    assert difference_or_none(np.array([1.0, math.nan]), np.ones(2)) is None
    assert difference_or_none(np.ones(1), np.ones(1)) is None
