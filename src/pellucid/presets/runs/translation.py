"""An encoder-decoder that learns to translate, by the recipe of the first Transformer: give data.path, pairs of texts.

From it: β₂ 0.98, eps 1e-9, no weight decay, 4,000 warmup steps and then the inverse square root, label smoothing and
dropout of 0.1, 100,000 steps (Vaswani et al. 2017, arXiv:1706.03762, sec. 5). Its peak rate is
(d_model · warmup)^-0.5 = 5.7e-4. A pair counts as a whole window, so a step has 256 pairs of up to 128 ids each.
Model, vocabulary and sentinels are those of encdec-small, so that --init can begin with what that has learned.
"""

from pellucid.data.config import DataConfig
from pellucid.data.objectives import PairedConfig
from pellucid.optim import AdamWConfig, InverseSqrtConfig
from pellucid.presets.models.encdec import encdec_small
from pellucid.presets.runs.by_size import SENTINELS
from pellucid.tokenizers import GPT2Config
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig


def translation_base() -> RunConfig:
    return RunConfig(
        model=encdec_small().model_copy(update={"dropout": 0.1}),
        data=DataConfig(tokenizer=GPT2Config(special_tokens=SENTINELS), objective=PairedConfig()),
        train=TrainConfig(
            steps=100_000,
            batch_tokens=32_768,
            seq_len=128,
            lr=5.7e-4,
            optimizer=AdamWConfig(beta2=0.98, eps=1e-9, weight_decay=0.0),
            schedule=InverseSqrtConfig(warmup_steps=4000),
            label_smoothing=0.1,
            eval_every=1000,
            eval_tokens=100_000,
            checkpoint_every=1000,
            sample_prompt="hello",
            sample_tokens=64,
        ),
        run=RunDirectoryConfig(name="translation-base"),
    )
