"""Seconds: a model that learns a little, to see that everything works."""

from pellucid.model import DecoderConfig
from pellucid.optim import CosineConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def debug() -> RunConfig:
    return RunConfig(
        model=DecoderConfig(d_model=64, num_layers=2, num_heads=2, max_seq_len=64),
        train=TrainConfig(
            steps=40,
            batch_tokens=1024,
            lr=3e-3,
            schedule=CosineConfig(warmup_steps=10),
            eval_every=20,
            eval_tokens=4096,
            checkpoint_every=20,
            sample_tokens=64,
        ),
        run=RunDirectoryConfig(name="debug"),
    )
