"""A recipe for every model, from its size alone: what a model preset is trained by when a run is named after it.

    tokens        20 a parameter, where a fixed amount of computing gives the lowest loss
                  (Hoffmann et al. 2022, arXiv:2203.15556)
    batch         parameters / 1000 tokens, as whole windows, a power of two of them; from 8,192 to 524,288 tokens
    steps         tokens / batch, rounded to hundreds: about 20,000 between 10M and 500M parameters
    peak lr       6e-4 · sqrt(125M / parameters), at most 2e-3; near the table of Brown et al. 2020, arXiv:2005.14165
    warm-up       a thirtieth of the steps, then a cosine
    vocabulary    as many of GPT-2's ids as the model has rows for; an encoder-decoder's last 100 are sentinels
    objective     causal; for an encoder-decoder span corruption

Give data.path: the built-in corpus is far too small for such lengths.
"""

from __future__ import annotations

import math

from pellucid.data.config import DataConfig
from pellucid.data.objectives import SpanCorruptionConfig, sentinel_names
from pellucid.model import EncoderDecoderConfig, ModelConfig
from pellucid.model.stats import count_parameters, on_meta
from pellucid.optim import CosineConfig
from pellucid.tokenizers import ByteConfig, GPT2Config, TokenizerConfig
from pellucid.train.config import RunConfig, RunDirectoryConfig, TrainConfig

SENTINELS = sentinel_names(100)
"""T5's number of them, enough for windows of 1,900 ids."""
_BYTES, _GPT2_RANKS = 256, 50256


def by_size(name: str, model: ModelConfig) -> RunConfig:
    """A run of this name that trains the model by the recipe above."""
    parameters = count_parameters(on_meta(model)).total
    windows = _power_of_two(min(max(parameters / 1000, 8192), 524_288) / model.max_seq_len)
    batch_tokens = windows * model.max_seq_len
    steps = 100 * max(1, round(20 * parameters / batch_tokens / 100))
    return RunConfig(
        model=model,
        data=_data(model),
        train=TrainConfig(
            steps=steps,
            batch_tokens=batch_tokens,
            lr=float(f"{min(2e-3, 6e-4 * math.sqrt(125e6 / parameters)):.2g}"),
            schedule=CosineConfig(warmup_steps=steps // 30),
            eval_every=250,
            eval_tokens=1_000_000,
            checkpoint_every=250,
        ),
        run=RunDirectoryConfig(name=name),
    )


def _power_of_two(count: float) -> int:
    return 2 ** max(0, round(math.log2(count)))


def _data(model: ModelConfig) -> DataConfig:
    assert model.vocab_size is not None, "a model preset states its vocabulary"
    if isinstance(model, EncoderDecoderConfig):
        tokenizer = _tokenizer(model.vocab_size, SENTINELS)
        return DataConfig(tokenizer=tokenizer, objective=SpanCorruptionConfig())
    return DataConfig(tokenizer=_tokenizer(model.vocab_size, ()))


def _tokenizer(vocab_size: int, special_tokens: tuple[str, ...]) -> TokenizerConfig:
    ranks = vocab_size - 1 - len(special_tokens)  # without the end of text
    if ranks == _BYTES:
        return ByteConfig(special_tokens=special_tokens)
    return GPT2Config(max_ranks=ranks if ranks < _GPT2_RANKS else None, special_tokens=special_tokens)
