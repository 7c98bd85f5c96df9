"""Story-sized models: 22M parameters over the first 21,503 merges of GPT-2's vocabulary."""

from pellucid.data.config import DataConfig
from pellucid.optim import CosineConfig
from pellucid.presets.models import tinystories as models
from pellucid.tokenizers import GPT2Config
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig

TINYSTORIES = "hub:roneneldan/TinyStories"
"""Eldan & Li 2023, arXiv:2305.07759: two million stories that a four-year-old understands."""


def tinystories() -> RunConfig:
    """`tinystories-22m` on TinyStories itself, from the hub."""
    run = tinystories_22m()
    return run.model_copy(
        update={
            "data": run.data.model_copy(update={"path": TINYSTORIES, "val_fraction": 0.01}),
            "run": RunDirectoryConfig(name="tinystories"),
        }
    )


def tinystories_22m() -> RunConfig:
    model = models.tinystories_22m()
    assert model.vocab_size is not None
    return RunConfig(
        model=model,
        data=DataConfig(tokenizer=GPT2Config(max_ranks=model.vocab_size - 1)),
        train=TrainConfig(
            steps=5000,
            batch_tokens=16384,
            lr=1.5e-3,
            schedule=CosineConfig(warmup_steps=200),
            eval_every=250,
            checkpoint_every=250,
            sample_prompt="Once upon a time",
        ),
        run=RunDirectoryConfig(name="tinystories-22m"),
    )
