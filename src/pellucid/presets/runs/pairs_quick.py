"""A minute or two on two CPU cores: an encoder-decoder that learns a short task from pairs of source and target."""

from pellucid.data.config import DataConfig
from pellucid.data.objectives import PairedConfig
from pellucid.model import EncoderDecoderConfig
from pellucid.model.positions import LearnedPositionConfig
from pellucid.optim import AdamWConfig, CosineConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def pairs_quick() -> RunConfig:
    return RunConfig(
        model=EncoderDecoderConfig(
            d_model=128,
            num_encoder_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            max_seq_len=32,
            position=LearnedPositionConfig(),  # such tasks often ask for "the third from the end"
        ),
        data=DataConfig(objective=PairedConfig()),
        train=TrainConfig(
            steps=600,
            batch_tokens=2048,
            lr=2e-3,
            optimizer=AdamWConfig(beta2=0.98),
            schedule=CosineConfig(warmup_steps=50, final_fraction=0.02),
            eval_every=200,
            eval_tokens=20_000,
            checkpoint_every=200,
            sample_prompt="hello",
            sample_tokens=32,
        ),
        run=RunDirectoryConfig(name="pairs-quick"),
    )
