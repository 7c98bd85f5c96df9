"""Which of two models is better: verdicts, pairing, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pellucid.errors import DataError
from pellucid.evaluate.compare import Difference, compare, obstacles
from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import Evaluation, TaskEvaluation, TextEvaluation, UnitScores

DOCUMENTS = 60
RNG = np.random.default_rng(0)
BYTES = RNG.integers(500, 5000, size=DOCUMENTS)
HARDNESS = RNG.lognormal(0, 0.4, size=DOCUMENTS)
"""Bits per byte of each document for model a: far apart from each other, alike for all models."""


def text(
    bits: np.ndarray, *, sha: str = "same", tokens_per_byte: float = 0.25, seen: float | None = None
) -> TextEvaluation:
    losses = bits * BYTES * math.log(2)
    units = UnitScores(losses, np.maximum(1, (BYTES * tokens_per_byte)).astype(np.int64), BYTES)
    return TextEvaluation("held-out.txt", sha, "tokenizer", "document", 256, 256, units, seen)


def model(name: str, *texts: TextEvaluation, tasks: tuple[TaskEvaluation, ...] = ()) -> Evaluation:
    return Evaluation(name, "hash of " + name, 1000, "fp32", "data", texts, tasks)


def test_a_small_difference_in_every_document_is_found_under_large_ones_between_documents():
    """b is better by 0.03 bits everywhere, give or take little: unpaired intervals overlap by far."""
    a = model("a", text(HARDNESS))
    b = model("b", text(HARDNESS - 0.03 + RNG.normal(0, 0.01, size=DOCUMENTS)))
    (found,) = compare([a, b]).differences
    assert found.better == "b"
    assert found.interval.value == pytest.approx(-0.03, abs=0.005)
    assert found.interval.half < 0.005
    assert a.texts[0].bits_per_byte_interval.half > 0.05  # type: ignore[union-attr]
    assert str(found) == (
        f"b is better than a by {-found.interval.value:.4f} ± {found.interval.half:.4f} bits/byte; "
        "the difference would not be chance"
    )
    assert found.units == "60 documents"


def test_the_worse_second_model_is_named_as_such():
    a, b = model("a", text(HARDNESS)), model("b", text(HARDNESS * 1.1))
    (found,) = compare([a, b]).differences
    assert found.better == "a"
    assert str(found).startswith("a is better than b by ")


def test_what_may_be_chance_is_not_called_better():
    noise = RNG.normal(0, 0.2, size=DOCUMENTS)
    a, b = (
        model("a", text(HARDNESS)),
        model("b", text(HARDNESS + noise - np.sum(noise * BYTES) / BYTES.sum())),
    )
    (found,) = compare([a, b]).differences
    assert found.better is None
    assert "cannot be told apart" in str(found)


def test_tokenizers_do_not_matter():
    """The same losses in half as many tokens: no difference in bits per byte, whatever the perplexities."""
    a, b = model("a", text(HARDNESS)), model("b", text(HARDNESS, tokens_per_byte=0.5))
    assert a.texts[0].perplexity > 2 * b.texts[0].perplexity
    assert compare([a, b]).differences[0].interval.value == 0


def test_tasks_compare_item_by_item():
    right = np.array([1.0] * 70 + [0.0] * 30)
    better = right.copy()
    better[70:85] = 1
    tasks = [
        TaskEvaluation("hellaswag", "file", {"acc": values}, {"acc": "mean"}) for values in (right, better)
    ]
    (found,) = compare([model("a", tasks=(tasks[0],)), model("b", tasks=(tasks[1],))]).differences
    assert (found.better, found.metric, found.units) == ("b", "acc", "100 items")
    assert found.interval.value == pytest.approx(0.15)
    assert found.interval.low > 0.05


def answers(name: str, right: np.ndarray, parts: tuple[int, ...] = ()) -> Evaluation:
    task = TaskEvaluation("piqa", "file", {"acc": right}, {"acc": "mean"}, parts=parts)
    return model(name, tasks=(task,))


@pytest.mark.parametrize("parts", [(), (40, 160)])
def test_exchanged_models_have_the_mirrored_verdict(parts: tuple[int, ...]):
    rng = np.random.default_rng(3)
    right, nats = (rng.random((2, 200)) < 0.6).astype(float), rng.exponential(2, (2, 200))
    nats[1] = nats[0] + rng.exponential(0.1, 200)  # no difference is negative
    better = np.maximum(*right)
    for first, second, metric, word in (
        (right[0], right[1], "acc", "mean"),
        (right[0], better, "acc", "mean"),
        (nats[0], nats[1], "nll", "perplexity"),
    ):
        a, b = (
            model(name, tasks=(TaskEvaluation("t", "f", {metric: values}, {metric: word}, parts=parts),))
            for name, values in zip("ab", (first, second), strict=True)
        )
        (there,), (back,) = compare([a, b]).differences, compare([b, a]).differences
        assert (there.interval.low, there.interval.high) == (-back.interval.high, -back.interval.low)
        assert there.better == back.better


def test_texts_mirror_too():
    a, b = model("a", text(HARDNESS)), model("b", text(HARDNESS + RNG.exponential(0.02, size=DOCUMENTS)))
    (there,), (back,) = compare([a, b]).differences, compare([b, a]).differences
    assert (there.interval.low, there.interval.high) == (-back.interval.high, -back.interval.low)
    assert there.better == back.better == "a"


def test_models_that_differ_in_few_answers_by_chance_are_seldom_told_apart():
    """200 items, one of which they answer differently on average, either way as likely."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        right = (rng.random(200) < 0.5).astype(float)
        other = np.where(rng.random(200) < 0.005, 1 - right, right)
        wrong += compare([answers("a", right), answers("b", other)]).differences[0].better is not None
    assert wrong <= 60


def test_every_difference_that_is_shown_counts_for_the_level():
    right = np.array([1.0, 0.0, 1.0, 0.0])
    both = TaskEvaluation(
        "piqa", "file", {"acc": right, "acc_norm": right}, {"acc": "mean", "acc_norm": "mean"}
    )
    single = TaskEvaluation("one", "file", {"acc": right[:1]}, {"acc": "mean"})  # none to tell: not counted
    models = [model(name, text(HARDNESS), tasks=(both, single)) for name in "abc"]
    found = compare(models)
    assert len(found.differences) == 6
    assert {each.interval.level for each in found.differences} == {found.level} == {1 - 0.05 / 6}
    assert found.to_dict()["level"] == found.level


def difference(value: float, low: float, high: float) -> Difference:
    return Difference(
        "t", "bits/byte", "A", "B", Interval(value, low, high), lower_is_better=True, units="9 documents"
    )


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((-0.031, -0.0392, -0.0228), "B is better than A by 0.0310 ± 0.0082 bits/byte; the difference would"),
        (
            (-0.031, -0.0592, -0.0228),
            "B is better than A by 0.0310 [0.0228, 0.0592] bits/byte; the difference would",
        ),
        ((0.02, 0.001, 0.06), "A is better than B by 0.0200 [0.0010, 0.0600] bits/byte"),  # ± would hold 0
        ((0.01, 0.00001, 0.02004), "A is better than B by 0.0100 [0.0000, 0.0200]"),  # so would this
        (
            (-0.01, -0.03, 0.001),
            "B and A cannot be told apart: they differ by 0.0100 [-0.0010, 0.0300] bits/byte",
        ),
        ((0.00012, 0.0001, 0.00014), "A is better than B by 0.000120 ± 0.000020"),
        ((math.nan, math.nan, math.nan), "B and A cannot be told apart"),
    ],
)
def test_what_is_printed_does_not_contradict_the_verdict(bounds: tuple[float, float, float], words: str):
    assert str(difference(*bounds)).startswith(words)


def test_folders_compare_as_the_average_of_their_parts():
    """All that b has more lies in a part of 10 items, which counts as much as one of 190."""
    right = np.array([0.0] * 10 + [1.0] * 95 + [0.0] * 95)
    better = right.copy()
    better[:8] = 1
    (found,) = compare([answers("a", right, (10, 190)), answers("b", better, (10, 190))]).differences
    assert found.interval.value == pytest.approx(0.4)
    assert (found.better, found.units) == ("b", "200 items in 2 parts")
    assert obstacles(answers("a", right, (10, 190)), answers("b", right, (20, 180))) == [
        "piqa: b has other parts than a"
    ]


def test_unpaired_shares_have_newcombes_interval():
    """His table II: 56/70 and 48/80, method 10: 0.0524 to 0.3339."""
    first = TaskEvaluation("t", "one", {"acc": np.repeat([1.0, 0.0], [48, 32])}, {"acc": "mean"})
    second = TaskEvaluation("t", "two", {"acc": np.repeat([1.0, 0.0], [56, 14])}, {"acc": "mean"})
    (found,) = compare([model("a", tasks=(first,)), model("b", tasks=(second,))], force=True).differences
    assert (found.interval.low, found.interval.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_what_nobody_could_look_up_is_said():
    a, b = model("a", text(HARDNESS, seen=0.0)), model("b", text(HARDNESS))
    cautions = [line for line in compare([a, b]).cautions if "not checked" in line]
    assert len(cautions) == 1
    assert cautions[0].startswith("held-out.txt: not checked for b (")


def test_tasks_pair_by_name_and_have_names_of_their_own():
    one, two = (
        TaskEvaluation(name, name, {"acc": np.ones(5)}, {"acc": "mean"}) for name in ("x/one", "x/two")
    )
    a, b = model("a", tasks=(one, two)), model("b", tasks=(two, one))
    assert obstacles(a, b) == []
    assert [each.what for each in compare([a, b]).differences] == ["x/one", "x/two"]
    twice = model("b", tasks=(one, replace(two, task="x/one")))
    assert obstacles(a, twice) == ["x/one: b has 2 tasks of this name; give each file its own"]
    assert any(
        "x/two: measured of one of a and b only" in line for line in compare([a, twice], force=True).cautions
    )


def test_lower_perplexity_of_a_task_is_better():
    nats = RNG.exponential(2, size=200)
    tasks = [
        TaskEvaluation("lambada", "file", {"perplexity": values}, {"perplexity": "perplexity"})
        for values in (nats, nats - 0.1)
    ]
    (found,) = compare([model("a", tasks=(tasks[0],)), model("b", tasks=(tasks[1],))]).differences
    assert found.better == "b"
    assert found.metric == "nats an item"


def test_several_models_need_a_wider_interval():
    others = [model(name, text(HARDNESS + RNG.normal(0, 0.1, size=DOCUMENTS))) for name in "bcdef"]
    alone = compare([model("a", text(HARDNESS)), others[0]]).differences[0]
    among = compare([model("a", text(HARDNESS)), *others]).differences[0]
    assert among.interval.value == alone.interval.value
    assert among.interval.half > 1.1 * alone.interval.half


def test_other_text_is_refused_and_when_forced_compared_unpaired():
    a, b = model("a", text(HARDNESS)), model("b", text(HARDNESS * 0.9, sha="other"))
    with pytest.raises(DataError, match="b was scored on other text"):
        compare([a, b])
    forced = compare([a, b], force=True)
    assert not forced.differences[0].is_paired
    assert forced.differences[0].better is None  # 10 % are not much beside what texts differ
    assert any("other text" in caution for caution in forced.cautions)


def test_text_of_the_training_data_is_refused():
    a, b = model("a", text(HARDNESS, seen=0.0)), model("b", text(HARDNESS * 0.5, seen=0.31))
    with pytest.raises(DataError, match="31% of its spans of 100 bytes stand in the training text of b"):
        compare([a, b])
    assert any("31%" in caution for caution in compare([a, b], force=True).cautions)


def test_other_units_and_other_task_files_are_refused():
    a = model("a", text(HARDNESS))
    cut = text(HARDNESS)
    blocks = UnitScores(cut.units.losses[:30], cut.units.tokens[:30], cut.units.bytes[:30])
    assert (
        "other units" in obstacles(a, model("b", replace(cut, unit="block of 2,048 bytes", units=blocks)))[0]
    )
    task = TaskEvaluation("piqa", "one", {"acc": np.ones(5)}, {"acc": "mean"})
    lines = obstacles(model("a", tasks=(task,)), model("b", tasks=(replace(task, file_sha256="two"),)))
    assert lines == ["piqa: b was measured on another file than a"]
    fewer = replace(task, metrics={"acc": np.ones(3)})
    assert obstacles(model("a", tasks=(task,)), model("b", tasks=(fewer,))) == ["piqa: b has 3 items and a 5"]


def test_nothing_in_common_is_said_even_when_forced():
    task = TaskEvaluation("piqa", "one", {"acc": np.ones(5)}, {"acc": "mean"})
    with pytest.raises(DataError, match="measured on nothing"):
        compare([model("a", text(HARDNESS)), model("b", tasks=(task,))], force=True)
    with pytest.raises(DataError, match="at least two models"):
        compare([model("a", text(HARDNESS))])


def test_cautions_name_windows_precision_and_other_training_data():
    a = model("a", text(HARDNESS))
    b = replace(
        model("b", replace(text(HARDNESS), window=1024, stride=512)), precision="bf16", trained_on="else"
    )
    cautions = compare([a, b]).cautions
    for words in (
        "windows of 1,024 tokens (stride 512)",
        "computed in bf16",
        "trained on other data",
        "another seed",
    ):
        assert any(words in caution for caution in cautions), words


def test_models_of_one_name_are_numbered():
    assert compare([model("a", text(HARDNESS)), model("a", text(HARDNESS))]).models == ("a (1)", "a (2)")
