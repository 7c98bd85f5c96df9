"""`pellucid compare`: two runs on one text, what was kept of them, and what it refuses."""

from __future__ import annotations

import random

import pytest


@pytest.fixture
def pair(train_tiny, workdir):
    """Two runs of one recipe, the second with fewer updates, and a text that neither has seen."""
    first = train_tiny("run.dir=runs/long", "train.steps=60", "train.lr=3e-3").directory
    second = train_tiny("run.dir=runs/short", "train.steps=4").directory
    words = random.Random(0).choices(
        ["the", "king", "is", "dead", "and", "long", "may", "live", "his", "sister", "in", "this", "castle"],
        k=9000,
    )
    (workdir / "unseen.txt").write_text(" ".join(words), encoding="utf-8")
    return first, second


def test_the_better_run_is_named_with_its_interval(cli, pair):
    long, short = pair
    outcome = cli("compare", short, long, "--data", "unseen.txt")
    assert outcome.status == 0
    verdict = outcome.out.splitlines()[-1]
    assert verdict.startswith(f"unseen.txt: {long} is better than {short} by ")
    assert (
        "bits/byte; the difference would not be chance (95 % interval over 21 blocks of 2,048 bytes)"
        in verdict
    )
    assert "what another seed of training would change is not in them" in outcome.err

    found = cli("compare", short, long, "--data", "unseen.txt", "--json").json
    (difference,) = found["differences"]
    alone = [each["texts"][0]["bits_per_byte"] for each in found["evaluations"]]
    assert difference["interval"]["value"] == pytest.approx(alone[1] - alone[0], abs=1e-9)
    assert difference["better"] == str(long)


def test_kept_files_compare_as_the_models_did(cli, pair):
    for name, run in zip("ab", pair, strict=True):
        assert cli("evaluate", run, "--data", "unseen.txt", "--out", f"{name}.json").status == 0
    kept = cli("compare", "a.json", "b.json", "--json").json["differences"][0]
    again = cli("compare", *pair, "--data", "unseen.txt", "--json").json["differences"][0]
    assert kept["interval"] == again["interval"]
    assert (
        "--data want the checkpoint itself" in cli("compare", "a.json", pair[1], "--data", "unseen.txt").error
    )


def test_text_that_was_trained_on_is_refused_unless_forced(cli, pair, corpus):
    outcome = cli("compare", *pair, "--data", corpus)
    assert "not be a fair comparison" in outcome.error
    assert "% of its spans of 100 bytes stand in the training text of runs/long" in outcome.err
    forced = cli("compare", *pair, "--data", corpus, "--force")
    assert forced.status == 0
    assert "stand in the training text" in forced.err


def test_too_little_text_is_said(cli, pair):
    assert "nothing to compare" in cli("compare", *pair).error  # a validation split of one block


def test_one_model_is_no_comparison(cli, pair):
    assert "at least two models" in cli("compare", pair[0]).error
    assert "no such" in cli("compare", pair[0], "nowhere.json").error


def test_contexts_that_differ_are_read_with_the_smaller_window(cli, pair, train_tiny):
    wide = train_tiny("run.dir=runs/wide", "train.steps=4", "model.max_seq_len=64").directory
    outcome = cli("compare", wide, pair[1], "--data", "unseen.txt", "--json")
    windows = [each["texts"][0]["window"] for each in outcome.json["evaluations"]]
    narrow = cli("evaluate", pair[1], "--data", "unseen.txt", "--json").json["window"]
    assert narrow < 64
    assert windows == [narrow, narrow]
    assert f"all are read in windows of {narrow} tokens, the context of {pair[1]}" in outcome.err
    assert "was read in windows of" not in outcome.err


def test_how_it_is_read_can_be_said(cli, pair, workdir):
    lines = (f'{{"body": "{"the king is dead and long may live his sister. " * 9}{n}"}}' for n in range(25))
    (workdir / "held.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = (
        "--data",
        "held.jsonl",
        "--text-field",
        "body",
        "--seq-len",
        16,
        "--stride",
        8,
        "--max-tokens",
        3000,
    )
    found = cli("compare", *pair, *arguments, "--json").json["evaluations"]
    for each in (evaluation["texts"][0] for evaluation in found):
        assert (each["window"], each["stride"]) == (16, 8)
        assert each["tokens"] <= 3000
    task = '{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n'
    (workdir / "piqa.jsonl").write_text(task * 9, encoding="utf-8")
    found = cli("compare", *pair, "--tasks", "piqa=piqa.jsonl", "--limit", 4, "--json").json["evaluations"]
    assert [each["tasks"][0]["items"] for each in found] == [4, 4]


def test_several_verdicts_have_one_level(cli, pair, workdir):
    task = '{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n'
    (workdir / "piqa.jsonl").write_text(task * 9, encoding="utf-8")
    out = cli("compare", *pair, "--tasks", "piqa=piqa.jsonl").out
    assert out.count("(97.5 % interval over 9 items)") == 2
    assert "2 differences are shown. Their intervals are of 97.5 % each" in out
