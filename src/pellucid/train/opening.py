"""A config meets its data and its machine: prepared shards, their tokenizer, the order, the plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from pellucid import tokenizers
from pellucid.data.cache import prepare_cached
from pellucid.data.objectives import Objective
from pellucid.data.order import TrainingOrder
from pellucid.data.shards import ShardSet, open_shards
from pellucid.errors import ConfigError, TokenizerError
from pellucid.model import EncoderDecoderConfig, Transformer
from pellucid.model.stats import count_flops, count_training_state, estimate_activation_bytes, on_meta
from pellucid.runtime.device import Device
from pellucid.runtime.memory import total_bytes
from pellucid.tokenizers import Tokenizer
from pellucid.train.config import RunConfig
from pellucid.train.plan import Plan, make_plan


@dataclass(frozen=True)
class OpenedData:
    """Prepared shards and the tokenizer that reads them."""

    shards: ShardSet
    tokenizer: Tokenizer


def open_data(config: RunConfig, *, progress: Callable[[int, int], None] | None = None) -> OpenedData:
    """Open `data.path`, preparing raw text into the cache first. Every shard is checked against its SHA-256."""
    data = config.data
    directory = prepare_cached(
        data.path,
        data.tokenizer,
        val_fraction=data.val_fraction,
        text_field=data.text_field,
        pair_fields=data.pair_fields,
        cache_dir=data.cache_dir,
        num_threads=os.cpu_count() or 1,
        progress=progress,
    )
    shards = open_shards(directory)
    shards.verify()
    return OpenedData(shards, tokenizers.load(shards.tokenizer_directory))


def plan_run(config: RunConfig, data: OpenedData, device: Device) -> tuple[Plan, TrainingOrder]:
    """Resolve a config against its data and device.

    Raises DataError for too little data on either side, ConfigError for what the data's tokenizer cannot do.
    """
    _require_sample_prompt(config, data.tokenizer)
    seq_len = config.train.seq_len or config.model.max_seq_len
    objective = build_objective(config, data.tokenizer)
    order = objective.order(
        data.shards.train,
        seed=config.train.seed,
        shuffle_shards=config.data.shuffle_shards,
        tokens_per_epoch=config.data.tokens_per_epoch,
    )
    objective.evaluation_batches(data.shards.val, batch_windows=1)  # raises where there is nothing to score
    sized = config.model.model_copy(
        update={"vocab_size": config.model.vocab_size or data.tokenizer.vocab_size}
    )
    plan = make_plan(
        config,
        device,
        vocab_size=data.tokenizer.vocab_size,
        start_id=default_start_id(data.tokenizer),
        windows_per_epoch=order.windows_per_epoch,
        training_flops_per_token=count_flops(
            model := on_meta(sized), objective.decoder_len, objective.encoder_len
        ).training
        / seq_len,
        largest_micro_batch=_fitting_windows(model, config, objective, device),
    )
    return plan, order


def _require_sample_prompt(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where samples are wanted and their prompt has no ids: at the first, a run would end."""
    if config.train.sample_tokens == 0:
        return
    prompt = config.train.sample_prompt
    if not prompt and tokenizer.end_of_text_id is None:
        prompt = "\n"  # what generation begins an empty prompt with
    try:
        tokenizer.encode(prompt, allow_special=isinstance(config.model, EncoderDecoderConfig))
    except TokenizerError as error:
        raise ConfigError(
            f"train.sample_prompt: {config.train.sample_prompt!r} cannot be encoded by data.tokenizer.kind "
            f"{tokenizer.kind!r} ({error}); give another prompt, another tokenizer, or train.sample_tokens=0"
        ) from None


def build_objective(config: RunConfig, tokenizer: Tokenizer, *, seq_len: int | None = None) -> Objective:
    """What the run learns from windows of its text, of its own length or `seq_len`.

    Raises ConfigError where the tokenizer or the model does not allow it.
    """
    model = config.model
    is_encoder_decoder = isinstance(model, EncoderDecoderConfig)
    start_id = model.start_id if is_encoder_decoder else None
    return config.data.objective.build(
        tokenizer=tokenizer,
        is_encoder_decoder=is_encoder_decoder,
        seq_len=seq_len or config.train.seq_len or model.max_seq_len,
        start_id=default_start_id(tokenizer) if start_id is None else start_id,
        seed=config.train.seed,
    )


def default_start_id(tokenizer: Tokenizer) -> int:
    """What an encoder-decoder's targets begin after: the end of text, or id 0 where there is none."""
    return tokenizer.end_of_text_id or 0


def _fitting_windows(model: Transformer, config: RunConfig, objective: Objective, device: Device) -> int:
    """The windows whose activations, beside weights and optimizer, are estimated to take half the memory."""
    window = estimate_activation_bytes(
        model,
        1,
        objective.decoder_len,
        objective.encoder_len,
        recompute=config.train.activation_checkpointing,
    ).hidden
    room = total_bytes(device.type) // 2 - count_training_state(model).total
    return max(1, room // window)


def preparing_progress(console: Console) -> Callable[[int, int], None]:
    """A progress callback that says how far preparing has come, at most once a second."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 1 or (done == total and total > 10_000_000):
            last = time.monotonic()
            console.print(f"preparing data: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return show
