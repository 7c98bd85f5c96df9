"""Minutes on two CPU cores: a byte-level model on the built-in corpus, good enough to write in its manner."""

from pellucid.model import DecoderConfig
from pellucid.optim import CosineConfig, MuonConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def quick() -> RunConfig:
    return RunConfig(
        model=DecoderConfig(d_model=192, num_layers=4, num_heads=6, max_seq_len=256),
        train=TrainConfig(
            steps=600,
            batch_tokens=4096,
            lr=4e-3,
            optimizer=MuonConfig(),
            schedule=CosineConfig(warmup_steps=50, final_fraction=0.02),
            eval_every=200,
            checkpoint_every=200,
            sample_tokens=400,
        ),
        run=RunDirectoryConfig(name="quick"),
    )
