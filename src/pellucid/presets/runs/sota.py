"""The modern default with GPT-2's vocabulary. On the built-in corpus unless data.path names another."""

from pellucid.data.config import DataConfig
from pellucid.model import DecoderConfig
from pellucid.optim import CosineConfig
from pellucid.presets.models import sota
from pellucid.tokenizers import GPT2Config
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def sota_16m() -> RunConfig:
    return _run("sota-16m", sota.sota_16m(), steps=1000, batch_tokens=8192, lr=2e-3, warmup_steps=100)


def sota_125m() -> RunConfig:
    return _run("sota-125m", sota.sota_125m(), steps=20_000, batch_tokens=131_072, lr=6e-4, warmup_steps=700)


def sota_250m() -> RunConfig:
    return _run("sota-250m", sota.sota_250m(), steps=40_000, batch_tokens=131_072, lr=4e-4, warmup_steps=1000)


def _run(
    name: str, model: DecoderConfig, *, steps: int, batch_tokens: int, lr: float, warmup_steps: int
) -> RunConfig:
    return RunConfig(
        model=model,
        data=DataConfig(tokenizer=GPT2Config()),
        train=TrainConfig(
            steps=steps,
            batch_tokens=batch_tokens,
            lr=lr,
            schedule=CosineConfig(warmup_steps=warmup_steps),
            eval_every=250,
            eval_tokens=1_000_000,
            checkpoint_every=250,
        ),
        run=RunDirectoryConfig(name=name),
    )
