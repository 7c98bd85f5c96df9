"""Tiny checkpoints, and tasks of the harness in local files: nothing here asks a network for anything."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import checkpoint
from pellucid.config import from_tree, to_tree
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.tokenizers import ByteTokenizer

CONTEXT = 48
END = 256


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A decoder and an encoder-decoder over bytes, whose weights are drawn wide: no continuation is like another."""
    sizes: dict[str, Any] = {
        "vocab_size": 264,
        "d_model": 16,
        "num_heads": 2,
        "max_seq_len": CONTEXT,
        "tie_embeddings": False,
    }
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "start_id": END}
    configs = {
        "decoder": from_tree(DecoderConfig, {**sizes, "num_layers": 2}),
        "encoder_decoder": from_tree(EncoderDecoderConfig, {**sizes, **layers}),
    }
    folder, draw = tmp_path_factory.mktemp("models"), torch.Generator().manual_seed(2)
    for name, config in configs.items():
        weights = {
            key: tensor.detach().normal_(std=0.4, generator=draw)
            for key, tensor in config.build().named_parameters()
        }
        checkpoint.save(
            folder / name, checkpoint.Contents({"model": to_tree(config)}, weights, ByteTokenizer())
        )
    return {name: folder / name for name in configs}


@pytest.fixture
def loaded(checkpoints):
    """The decoder as we load it, in float64, for sums by hand."""
    found = checkpoint.load(checkpoints["decoder"])
    return found.model.double(), found.tokenizer


@pytest.fixture
def write_task(tmp_path):
    """Write `tasks/NAME.yaml`, with its items in a file beside it; returns the folder of tasks."""

    def write(name: str, items: list[dict[str, Any]], **settings: Any) -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "datasets")},
            "test_split": "test",
            **settings,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML, too
        return folder

    return write


@pytest.fixture
def evaluate(checkpoints):
    """Run one task of a folder by the harness's Python call: its results, and what it logged of each item."""
    harness = pytest.importorskip("lm_eval", reason="lm_eval is not installed: the extra `eval`")
    from lm_eval.tasks import TaskManager

    import pellucid.evaluate.lm_eval as _registers  # noqa: F401

    def run(folder: Path, model: str = "decoder", *, words: str = "device=cpu", **settings: Any):
        (task,) = [file.stem for file in folder.glob("*.yaml")]
        found = harness.simple_evaluate(
            model="pellucid",
            model_args=f"pretrained={checkpoints[model]},{words}",
            tasks=[task],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
            **settings,
        )
        return found["results"][task], found["samples"][task]

    return run
