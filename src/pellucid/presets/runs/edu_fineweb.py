"""The classic GPT on educational web pages, streamed: FineWeb-Edu's sample of 10 billion tokens.

Nothing is prepared first: shards of token ids come while the run goes on, and take 2 GB of disk at the most.
Source of the data: Penedo et al. 2024, arXiv:2406.17557; https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu
"""

from pellucid.data.config import DataConfig
from pellucid.data.stream import StreamConfig
from pellucid.model import DecoderConfig
from pellucid.optim import CosineConfig
from pellucid.presets.models import edu
from pellucid.tokenizers import Cl100kBaseConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig

FINEWEB_EDU = "hub:HuggingFaceFW/fineweb-edu:sample-10BT"
_CL100K_IDS = 100_277
_MIB = 1 << 20


def edu_fineweb() -> RunConfig:
    """100 million tokens an epoch; 16 micro-batches of 8 windows an update."""
    return _run(
        "edu-fineweb",
        edu.edu_6l(),
        tokens_per_epoch=100_000_000,
        batch_tokens=65_536,
        micro_batch=8,
        stream=StreamConfig(enabled=True, shard_bytes=32 * _MIB),
    )


def edu_fineweb_quick() -> RunConfig:
    """10 million tokens an epoch."""
    return _run(
        "edu-fineweb-quick",
        edu.edu_4l(),
        tokens_per_epoch=10_000_000,
        batch_tokens=16_384,
        micro_batch=2,
        stream=StreamConfig(enabled=True, shard_bytes=8 * _MIB, val_documents=200),
    )


def _run(
    name: str,
    model: DecoderConfig,
    *,
    tokens_per_epoch: int,
    batch_tokens: int,
    micro_batch: int,
    stream: StreamConfig,
) -> RunConfig:
    return RunConfig(
        model=model.model_copy(update={"vocab_size": _CL100K_IDS}),
        data=DataConfig(
            path=FINEWEB_EDU,
            tokenizer=Cl100kBaseConfig(),
            stream=stream,
            shuffle_shards=3,
            tokens_per_epoch=tokens_per_epoch,
        ),
        train=TrainConfig(
            epochs=1,
            batch_tokens=batch_tokens,
            micro_batch=micro_batch,
            lr=1e-3,
            schedule=CosineConfig(warmup_steps=100),
            eval_every=250,
            eval_tokens=200_000,
            checkpoint_every=250,
            sample_prompt="Photosynthesis is",
        ),
        run=RunDirectoryConfig(name=name),
    )
