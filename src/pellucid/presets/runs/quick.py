"""Minutes on two CPU cores: a byte-level model on the built-in corpus, good enough to write in its manner."""

from pellucid.model import DecoderConfig
from pellucid.optim import AdamWConfig, CosineConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def quick() -> RunConfig:
    return RunConfig(
        model=DecoderConfig(d_model=256, num_layers=4, num_heads=4, max_seq_len=256, dropout=0.0),
        train=TrainConfig(
            steps=700,
            batch_tokens=8192,
            lr=3e-3,
            optimizer=AdamWConfig(beta2=0.98),
            schedule=CosineConfig(warmup_steps=50, final_fraction=0.02),
            eval_every=100,
            checkpoint_every=100,
            sample_tokens=400,
        ),
        run=RunDirectoryConfig(name="quick"),
    )
