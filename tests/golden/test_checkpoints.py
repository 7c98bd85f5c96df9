"""Checkpoints of every format version so far still load, and their models still say what they said."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.train import RunConfig, resume
from pellucid.train.run_files import read_facts

FORMATS = sorted(Path(__file__).parent.glob("format-*"))


def test_the_current_format_is_among_them(record):
    assert record.CHECKPOINT in FORMATS


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def stored(request) -> Path:
    return request.param


def test_it_is_whole_and_small(stored):
    checkpoint.verify(stored / "checkpoint")
    assert sum(path.stat().st_size for path in stored.rglob("*") if path.is_file()) < 100_000


def test_its_model_gives_the_stored_logits(stored, record):
    loaded = checkpoint.load(stored / "checkpoint")
    ids = torch.from_numpy(loaded.tokenizer.encode(record.PROMPT).astype("int64"))
    with torch.inference_mode():
        logits = loaded.model(ids[None])[0, -1]
    expected = torch.tensor(json.loads((stored / "logits.json").read_text(encoding="utf-8")))
    assert expected.std() > 0.1, "a trained model has opinions"
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_its_config_is_a_run_that_can_be_gone_on_with(stored, workdir):
    config = from_tree(RunConfig, checkpoint.load_config(stored / "checkpoint"))
    values = checkpoint.load_train_state(stored / "checkpoint").values
    saved = workdir / f"run/checkpoints/step-{values['step']:08}"
    shutil.copytree(stored / "checkpoint", saved)
    shutil.copy(saved / "config.toml", workdir / "run/config.toml")
    end = resume(
        workdir / "run", [f"train.steps={config.train.steps + 5}"], console=Console(file=io.StringIO())
    ).end
    assert end.step == values["step"] + 5
    losses = [fact["loss"] for fact in read_facts(workdir / "run/metrics.jsonl") if fact["event"] == "step"]
    assert max(losses) < values["best_loss"] + 0.5, "it goes on where it was, not from fresh weights"
