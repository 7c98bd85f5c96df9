"""`pellucid export` and `pellucid import`: what they say, write, and make of each other."""

import json
from pathlib import Path

import pytest
import torch

from pellucid import checkpoint


def test_a_run_goes_out_and_comes_back_as_a_checkpoint_to_write_with_and_to_train_on(
    cli, run_directory, tiny
):
    outcome = cli("export", run_directory, "--out", "out/mine")
    assert outcome.status == 0, outcome.err
    assert outcome.out == ""
    assert "the run's best by validation loss" in outcome.err
    assert "same     logits: differ by" in outcome.err
    assert outcome.err.splitlines()[-1] == "written: out/mine"
    card = Path("out/mine/README.md").read_text(encoding="utf-8")
    assert "best validation loss" in card
    assert '"sha256"' in card or "plays.txt" in card

    outcome = cli("import", "out/mine", "--out", "back")
    assert outcome.status == 0, outcome.err
    assert outcome.err.splitlines()[-1] == "written: back; try it: pellucid generate back"
    path, _ = checkpoint.find_checkpoint(run_directory)
    before, after = (checkpoint.load(p).model.state_dict() for p in (path, Path("back")))
    assert all(torch.equal(before[name], after[name]) for name in before)

    written = [
        cli("generate", p, "--prompt", "To", "--preset", "greedy", "--json").json for p in (path, "back")
    ]
    assert written[0]["text"] == written[1]["text"]
    scores = [cli("evaluate", p, "--data", data(tiny), "--json").json["loss"] for p in (path, "back")]
    assert scores[0] == scores[1]
    words = ("--init", "back", "train.steps=2", "run.dir=more")
    assert cli("train", *tiny, *words).status == 0


def test_training_goes_on_with_the_model_and_the_tokenizer_of_the_checkpoint(cli, run_directory, tiny):
    """Whatever the preset's own are; its recipe stays."""
    assert cli("export", run_directory, "--out", "out").status == 0
    assert cli("import", "out", "--out", "back").status == 0
    words = ("train.steps=2", "train.batch_tokens=64", f"data.path={data(tiny)}", "run.dir=more", "run.name=")
    outcome = cli("train", "shakespeare-char", "--init", "back", *words)
    assert outcome.status == 0, outcome.err
    made, before = (
        checkpoint.load_config(checkpoint.find_checkpoint(Path(p))[0]) for p in ("more", run_directory)
    )
    assert made["model"]["d_model"] == before["model"]["d_model"]
    assert made["data"]["tokenizer"]["kind"] == "huggingface"
    assert made["train"]["lr"] != before["train"]["lr"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "gguf", "--dtype", "bf16"), "--dtype is for --to hf or weights, not for --to gguf"),
        (("--quantize", "q8_0"), "--quantize is for --to gguf, not for --to hf"),
        (("--to", "weights", "--license", "mit"), "--license is for --to hf, not for --to weights"),
        (("--out", "model.gguf"), "writes a directory; give --to gguf"),
    ],
)
def test_words_for_another_format_are_refused(cli, run_directory, words, said):
    assert said in cli("export", run_directory, *words).error
    assert not Path("model.gguf").exists()


def data(tiny):
    return next(word.partition("=")[2] for word in tiny if word.startswith("data.path="))


def test_the_receipt_as_json(cli, run_directory):
    found = cli("export", run_directory, "--out", "out", "--json").json
    assert (found["out"], found["to"], found["receipt"]["passed"]) == ("out", "hf", True)
    assert json.loads(Path("out/parity.json").read_text())["findings"] == found["receipt"]["findings"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_weights_alone_write_the_same_text(cli, run_directory, tiny, dtype):
    assert cli("export", run_directory, "--to", "weights", "--dtype", dtype, "--out", "small").status == 0
    assert not Path("small/train_state").exists()
    words = ("--prompt", "To", "--preset", "greedy", "--json")
    written = [cli("generate", p, *words).json["text"] for p in (run_directory, "small")]
    scores = [
        cli("evaluate", p, "--data", data(tiny), "--json").json["loss"] for p in (run_directory, "small")
    ]
    assert scores[0] == pytest.approx(scores[1], rel=0 if dtype == "fp32" else 1e-3)
    assert dtype != "fp32" or written[0] == written[1]
    assert "--init small" in cli("train", "--resume", "small").error


def test_where_it_goes_by_default(cli, run_directory):
    assert cli("export", run_directory).status == 0
    assert Path("exports/mine/config.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("import", "nowhere", "--out", "x"), "nowhere"),
        (("import", "runs", "--out", "x"), "no config.json in it"),
        (("export", "nowhere"), "no such run or checkpoint"),
    ],
)
def test_what_cannot_be_read_is_told(cli, run_directory, words, said):
    assert said in cli(*words).error
    assert not Path("x").exists()
