"""The small reference task of this field: characters of Shakespeare, a minute of a CPU."""

from pellucid.data.config import DataConfig
from pellucid.model import DecoderConfig
from pellucid.optim import CosineConfig, MuonConfig
from pellucid.tokenizers import CharConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def shakespeare_char() -> RunConfig:
    return RunConfig(
        model=DecoderConfig(d_model=128, num_layers=4, num_heads=4, max_seq_len=64),
        data=DataConfig(tokenizer=CharConfig()),
        train=TrainConfig(
            steps=2000,
            batch_tokens=2048,
            lr=4e-3,
            optimizer=MuonConfig(),
            schedule=CosineConfig(warmup_steps=50, final_fraction=0.02),
            eval_every=1000,
            checkpoint_every=1000,
        ),
        run=RunDirectoryConfig(name="shakespeare-char"),
    )
