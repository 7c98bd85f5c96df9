"""A tiny model, its tokenizer and a training state: what every test here saves and loads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pellucid.checkpoint import Contents, save
from pellucid.checkpoint.layout import step_directory
from pellucid.config import to_tree
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.tokenizers import ByteTokenizer

CONFIG = DecoderConfig(vocab_size=258, d_model=8, num_layers=1, num_heads=2, max_seq_len=12)


@pytest.fixture
def model() -> DecoderLM:
    return CONFIG.build(seed=1)


@pytest.fixture
def contents(model: DecoderLM) -> Contents:
    return Contents(
        config={"model": to_tree(CONFIG), "train": {"steps": 20, "lr": 1e-3}},
        model=dict(model.named_parameters()),
        tokenizer=ByteTokenizer(["<pad>"]),
        train_tensors={"exp_avg.final_norm.gain": torch.arange(8.0), "step": torch.tensor(20)},
        train_values={"step": 20, "elapsed_seconds": 1 / 3, "best_loss": None},
    )


@pytest.fixture
def saved(tmp_path: Path, contents: Contents) -> Path:
    """A checkpoint of a run."""
    path = step_directory(tmp_path / "runs" / "one", 20)
    save(path, contents)
    return path


@pytest.fixture
def save_run(tmp_path: Path, contents: Contents) -> Callable[..., Path]:
    """Saves checkpoints of a run `runs/NAME` after the given steps, and what its `best` says."""

    def save_steps(name: str, *steps: int, best: str | None = None) -> Path:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True, exist_ok=True)
        for step in steps:
            save(step_directory(run, step), contents)
        if best is not None:
            (run / "best").write_text(best, encoding="utf-8")
        return run

    return save_steps
