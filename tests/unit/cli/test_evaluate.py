"""`pellucid evaluate`: the numbers of the log again, other data, JSON, what is kept, token by token."""

import io
import json
import math
import os
import stat

import pytest
from rich.console import Console

from pellucid.evaluate.record import Evaluation


def test_it_gives_the_last_logged_validation_loss(cli, run_directory):
    logged = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    last = [fact for fact in logged if fact["event"] == "evaluation"][-1]
    assert last["is_best"]
    result = cli("evaluate", run_directory, "--max-tokens", last["val_tokens"], "--json").json
    # The log leaves the first token of a shard out, and evaluate the last one then.
    assert result["loss"] == pytest.approx(last["val_loss"], rel=2e-3)
    assert result["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=2e-3)
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]), rel=1e-6)
    assert result["tokens"] == last["val_tokens"]


def test_it_says_what_was_measured_on_what(cli, run_directory):
    outcome = cli("evaluate", run_directory)
    assert outcome.status == 0
    first, second = outcome.out.splitlines()
    assert first.startswith("val split of plays.txt: loss 5.")
    assert "bits/byte (2,000 tokens, 2,000 bytes, fp32)" in first
    assert second.startswith("no interval: 1 block of 2,048 bytes cannot say")
    assert f"{run_directory}/checkpoints/step-00000008 (the run's best by validation loss)" in outcome.err


def test_a_whole_text_has_intervals_over_blocks(cli, run_directory, corpus):
    outcome = cli("evaluate", run_directory, "--data", corpus, "--stride", 8)
    first, second, third = outcome.out.splitlines()
    assert first.count("[") == 3
    assert third.endswith("stand word for word in the training text")
    assert second == "[95 % interval] over 10 blocks of 2,048 bytes; windows of 16 tokens every 8"
    result = cli("evaluate", run_directory, "--data", corpus, "--stride", 8, "--json").json
    for name in ("loss", "perplexity", "bits_per_byte"):
        low, high = result[f"{name}_interval"]
        assert low < result[name] < high
    assert (result["unit"], result["units"], result["stride"]) == ("block of 2,048 bytes", 10, 8)


def test_the_record_is_kept_beside_the_run(cli, run_directory):
    outcome = cli("evaluate", run_directory)
    file = run_directory / "evaluations" / "val.json"
    assert f"kept in {file}" in outcome.err
    found = Evaluation.read(file)
    assert found.model == str(run_directory)
    assert found.precision == "fp32"
    assert len(found.weights_sha256) == 64
    assert found.parameters > 1000
    assert found.trained_on != ""
    assert f"loss {found.texts[0].loss:.4f}" in outcome.out


def test_other_settings_have_other_files(cli, run_directory, corpus):
    cli("evaluate", run_directory, "--max-tokens", 64)
    cli("evaluate", run_directory, "--data", corpus, "--seq-len", 8, "--stride", 4, "--reads", "stream")
    names = sorted(file.name for file in (run_directory / "evaluations").iterdir())
    assert len(names) == 2
    assert "val-first-64.json" in names
    assert any("plays.txt-stream-w8-s4-" in name for name in names)


def test_the_record_may_lie_elsewhere(cli, run_directory, workdir):
    assert "kept in own.json" in cli("evaluate", run_directory, "--out", "own.json").err
    assert Evaluation.read(workdir / "own.json").texts[0].tokens == 2000
    assert not (run_directory / "evaluations").exists()


def test_a_checkpoint_without_a_run_has_no_place_for_it(cli, run_directory, workdir):
    alone = (run_directory / "checkpoints" / "step-00000008").rename(workdir / "alone")
    outcome = cli("evaluate", alone, "--max-tokens", 64)
    assert outcome.status == 0
    assert "not kept: the checkpoint lies in no run directory; name a file with --out" in outcome.err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_run_that_cannot_be_written_is_scored_all_the_same(cli, run_directory):
    run_directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        outcome = cli("evaluate", run_directory)
    finally:
        run_directory.chmod(stat.S_IRWXU)
    assert outcome.status == 0
    assert "not kept: " in outcome.err


def test_a_file_in_the_way_of_the_records_is_said(cli, run_directory):
    (run_directory / "evaluations").write_text("")
    outcome = cli("evaluate", run_directory)
    assert outcome.status == 0
    assert "not kept: " in outcome.err
    assert "is in the way" in outcome.err or "a file is in the way" in outcome.err


def test_the_newest_run_is_the_default(cli, run_directory):
    assert f"{run_directory.name}/checkpoints" in cli("evaluate", "--json").json["checkpoint"]


def test_bf16_is_near_and_said(cli, run_directory):
    exact, rough = (
        cli("evaluate", run_directory, "--dtype", name, "--json").json for name in ("fp32", "bf16")
    )
    assert (exact["precision"], rough["precision"]) == ("fp32", "bf16")
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.01)
    assert rough["loss"] != exact["loss"]


def test_a_text_of_ones_own_can_be_scored(cli, run_directory, workdir):
    (workdir / "own.txt").write_text("To be, or not to be.\n")
    result = cli("evaluate", run_directory, "--data", "own.txt", "--json").json
    assert (result["data"], result["tokens"], result["bytes"]) == ("own.txt", 21, 21)


def test_parts_come_as_a_table(cli, run_directory, workdir):
    for name in ("one", "two"):
        lines = (json.dumps({"text": f"{name} {i} words"}) for i in range(12))
        (workdir / f"{name}.jsonl").write_text("\n".join(lines))
    words = ("evaluate", run_directory, "--data", "first=one.jsonl", "--data", "two.jsonl")
    lines = cli(*words).out.splitlines()
    assert lines[0].startswith("first + two.jsonl: loss ")
    assert lines[1].startswith("[95 % interval] over 24 documents")
    assert lines[2].split() == ["part", "documents", "tokens", "bytes", "loss", "perplexity", "bits/byte"]
    assert [line.split()[:2] for line in lines[3:]] == [["first", "12"], ["two.jsonl", "12"]]
    domains = cli(*words, "--json").json["domains"]
    assert (
        sum(part["bytes"] for part in domains.values()) == sum(len(f"one {i} words") for i in range(12)) * 2
    )


def test_tokens_and_page(cli, run_directory, workdir):
    (workdir / "own.txt").write_text("To be <or> not\nto be.\n")
    words = ("evaluate", run_directory, "--data", "own.txt")
    outcome = cli(*words, "--tokens", "t.json", "--page", "p.html", "--json")
    (document,) = json.loads((workdir / "t.json").read_text())["documents"]
    tokens = document["tokens"]
    assert "".join(token["text"] for token in tokens) == "To be <or> not\nto be.\n"
    assert [token["byte"] for token in tokens] == list(range(22))
    assert sum(token["nats"] for token in tokens) == pytest.approx(outcome.json["loss"] * 22, abs=1e-3)
    page = (workdir / "p.html").read_text()
    assert "&lt;" in page
    assert "<or>" not in page
    assert "own.txt" in page
    assert page.count('title="') == 22


def test_two_models_side_by_side(cli, run_directory, workdir):
    (workdir / "own.txt").write_text("To be, or not to be.\n")
    first = run_directory / "checkpoints" / "step-00000004"
    words = ("evaluate", run_directory, "--data", "own.txt", "--against", first)
    assert cli(*words, "--tokens", "t.json", "--page", "p.html").status == 0
    tree = json.loads((workdir / "t.json").read_text())
    assert tree["against"] == str(first)
    tokens = tree["documents"][0]["tokens"]
    assert any(token["nats"] != token["nats_against"] for token in tokens)
    alone = cli("evaluate", first, "--data", "own.txt", "--json").json
    assert sum(token["nats_against"] for token in tokens) == pytest.approx(alone["loss"] * 21, abs=1e-3)
    assert "Two models, token by token" in (workdir / "p.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seq-len", 17], "--seq-len 17 is more than the model's context (16)"),
        (["--stride", 17], "--stride 17: wanted 1 to 16, the window's length"),
        (["--stride", 0], "--stride 0: wanted 1 to 16"),
        (["--data", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--data", "=nowhere.txt"], "--data =nowhere.txt: wanted PATH, or NAME=PATH"),
        (["--dtype", "fp16"], "fp16 needs a CUDA GPU"),
        (["--against", "runs/mine"], "--against shows two models token by token"),
        (["--limit", 3], "--limit: is for --tasks, and there are none"),
        (["--reads", "stream"], "--reads stream: is for raw text, and the data was prepared"),
        (["--text-field", "body"], "--text-field: is for raw text, and the data was prepared"),
        (["--tasks", "piqa=p.jsonl", "--stride", 4], "--tasks: no text is scored beside them"),
    ],
)
def test_what_cannot_be_scored(cli, run_directory, words, message):
    assert message in cli("evaluate", run_directory, *words).error


def test_a_text_of_one_token_cannot_be_scored(cli, run_directory, workdir):
    (workdir / "one.txt").write_text("x")
    assert "needs at least 2" in cli("evaluate", run_directory, "--data", "one.txt").error


def test_a_checkpoint_without_a_tokenizer(cli, run_directory):
    checkpoint = run_directory / "checkpoints" / "step-00000008"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in [name for name in manifest["sha256"] if name.startswith("tokenizer/")]:
        (checkpoint / name).unlink()
        del manifest["sha256"][name]
    (checkpoint / "tokenizer").rmdir()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert "has no tokenizer/, so its ids cannot be read as text" in cli("evaluate", checkpoint).error


def test_an_encoder_decoder_is_scored_by_what_it_learned(cli, encoder_decoder, workdir):
    result = cli("evaluate", encoder_decoder, "--json").json
    assert result["unit"] == "window of 16 tokens"
    assert result["loss_interval"][0] < result["loss"] < result["loss_interval"][1]
    assert (
        cli("evaluate", encoder_decoder, "--data", "lines.txt", "--max-tokens", 99, "--json").json["tokens"]
        == 99
    )
    for words in (["--stride", 4], ["--reads", "stream"], ["--page", "p.html"]):
        message = cli("evaluate", encoder_decoder, "--data", "lines.txt", *words).error
        assert "is scored by what it learned, which is no running text" in message


def test_the_records_of_two_checkpoints_do_not_overwrite_each_other(cli, run_directory):
    for step in ("00000004", "00000008"):
        cli("evaluate", run_directory / "checkpoints" / f"step-{step}", "--max-tokens", 64)
    cli("evaluate", run_directory, "--max-tokens", 64)
    names = ["val-first-64-step-00000004.json", "val-first-64-step-00000008.json", "val-first-64.json"]
    assert sorted(file.name for file in (run_directory / "evaluations").iterdir()) == names


def test_texts_whose_names_look_alike_have_records_of_their_own(cli, run_directory, workdir):
    long = "x" * 130
    for name in ("a b.txt", "a+b.txt", "a-b.txt", f"{long}1.txt", f"{long}2.txt"):
        (workdir / name).write_text("To be, or not to be.\n")
        assert cli("evaluate", run_directory, "--data", name).status == 0
    names = {file.name for file in (run_directory / "evaluations").iterdir()}
    assert len(names) == 5
    assert "a-b.txt.json" in names


def test_the_validation_split_can_be_shown(cli, run_directory, workdir):
    outcome = cli("evaluate", run_directory, "--page", "p.html", "--tokens", "t.json", "--json")
    (document,) = json.loads((workdir / "t.json").read_text())["documents"]
    assert len(document["tokens"]) == 2000
    assert sum(token["nats"] for token in document["tokens"]) == pytest.approx(
        outcome.json["loss"] * 2000, rel=1e-6
    )
    assert (workdir / "p.html").read_text().count('title="') == 2000


def test_of_two_models_the_shorter_context_is_the_window(cli, tiny, run_directory, workdir):
    from pellucid.cli.options import run_config
    from pellucid.train import train

    words = (*tiny, "model.max_seq_len=8", "run.dir=runs/short")
    train(run_config(list(words)), console=Console(file=io.StringIO()))
    (workdir / "own.txt").write_text("To be, or not to be: that is the question.\n")
    for model, other in ((run_directory, "runs/short"), ("runs/short", run_directory)):
        words = ("evaluate", model, "--data", "own.txt", "--against", other, "--tokens", "t.json")
        assert cli(*words, "--json").json["window"] == 8
    message = cli(*words, "--seq-len", 12).error
    assert "runs/short/checkpoints" in message
    assert "--seq-len 12 is more than the model's context (8)" in message
