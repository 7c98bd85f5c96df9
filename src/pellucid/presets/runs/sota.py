"""The modern default with GPT-2's vocabulary. On the built-in corpus unless data.path names another.

The classic ones are trained by the recipe that became common with the Transformer (smoothed labels, dropout, a long
memory of squared gradients), to be compared with the default ones, which have none of these: the sibling of 16M
parameters is the same in small, its warmup the same share of the run.
"""

from pellucid.data.config import DataConfig
from pellucid.model import DecoderConfig
from pellucid.optim import AdamWConfig, CosineConfig
from pellucid.presets.models import sota
from pellucid.tokenizers import GPT2Config
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def sota_16m() -> RunConfig:
    return _run("sota-16m", sota.sota_16m(), steps=1000, batch_tokens=8192, lr=2e-3, warmup_steps=100)


def sota_125m() -> RunConfig:
    return _run(
        "sota-125m", sota.sota_125m(), steps=100_000, batch_tokens=131_072, lr=6e-4, warmup_steps=2000
    )


def sota_250m() -> RunConfig:
    return _run("sota-250m", sota.sota_250m(), steps=40_000, batch_tokens=131_072, lr=4e-4, warmup_steps=1000)


def sota_125m_classic() -> RunConfig:
    return _classic(sota_125m(), name="sota-125m-classic", steps=100_000, warmup_steps=4000)


def sota_16m_classic() -> RunConfig:
    return _classic(sota_16m(), name="sota-16m-classic", steps=1000, warmup_steps=40)


def _classic(run: RunConfig, *, name: str, steps: int, warmup_steps: int) -> RunConfig:
    recipe = {
        "steps": steps,
        "lr": 1e-3,
        "optimizer": AdamWConfig(beta1=0.9, beta2=0.98, weight_decay=0.01),
        "schedule": CosineConfig(warmup_steps=warmup_steps),
        "label_smoothing": 0.1,
        "final_dropout": 0.0,
    }
    return RunConfig(
        model=run.model.model_copy(update={"dropout": 0.1}),
        data=run.data,
        train=TrainConfig.model_validate(dict(run.train) | recipe),
        run=RunDirectoryConfig(name=name),
    )


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
