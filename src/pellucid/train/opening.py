"""A config meets its data and its machine: prepared shards, their tokenizer, the order, the plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from pellucid import tokenizers
from pellucid.data.cache import open_stream, prepare_cached
from pellucid.data.config import DataConfig
from pellucid.data.mixture import Mixture
from pellucid.data.objectives import Objective
from pellucid.data.order import Order
from pellucid.data.progress import Progress, Report
from pellucid.data.shards import Split, TokenData, open_shards
from pellucid.errors import ConfigError, TokenizerError
from pellucid.model import EncoderDecoderConfig
from pellucid.model.stats import count_flops, on_meta
from pellucid.runtime.console import StatusLine
from pellucid.runtime.device import Device
from pellucid.tokenizers import Tokenizer
from pellucid.train.config import RunConfig
from pellucid.train.memory import within_memory
from pellucid.train.plan import Plan, make_plan


@dataclass(frozen=True)
class OpenedData:
    """Token shards and the tokenizer that reads them."""

    shards: TokenData
    tokenizer: Tokenizer


def open_data(config: RunConfig, *, progress: Report | None = None, verify: bool = True) -> OpenedData:
    """Open what the run is trained on: prepared data, text that is prepared into the cache first, or a stream.

    Every shard that is here is checked against its SHA-256, unless another process of the run has done so.
    """
    shards = _open_shards(config.data, progress)
    if verify:
        shards.verify()
    return OpenedData(shards, tokenizers.load(shards.tokenizer_directory))


def _open_shards(data: DataConfig, progress: Report | None) -> TokenData:
    if data.stream.enabled:
        return open_stream(
            data.path, data.tokenizer, data.stream, reading=data.reading, cache_dir=data.cache_dir
        )
    prepared = [
        open_shards(
            prepare_cached(
                path,
                data.tokenizer,
                reading=data.reading,
                val_fraction=data.val_fraction,
                deduplicate=data.deduplicate,
                cache_dir=data.cache_dir,
                workers=os.cpu_count() or 1,
                progress=progress,
            )
        )
        for path in ([member.path for member in data.mixture] or [data.path])
    ]
    return Mixture(prepared, [m.weight for m in data.mixture]) if data.mixture else prepared[0]


def training_order(config: RunConfig, data: OpenedData, objective: Objective) -> Order:
    """The order in which the run sees its windows. Raises DataError for too little data."""
    settings = config.data

    def of(split: Split, tokens_per_epoch: int | None) -> Order:
        return objective.order(
            split,
            seed=config.train.seed,
            shuffle_shards=settings.shuffle_shards,
            tokens_per_epoch=tokens_per_epoch,
        )

    if not isinstance(data.shards, Mixture):
        return of(data.shards.train, settings.tokens_per_epoch)
    limit = settings.tokens_per_epoch
    return data.shards.order(
        [of(member.train, None) for member in data.shards.members],
        windows_per_epoch=None if limit is None else max(1, limit // objective.seq_len),
    )


def plan_run(config: RunConfig, data: OpenedData, device: Device) -> tuple[Plan, Order]:
    """Resolve a config against its data and device.

    Raises DataError for too little data on either side, ConfigError for what the data's tokenizer cannot do.
    """
    _require_sample_prompt(config, data.tokenizer)
    config = _pinned(config, data.shards)
    objective = build_objective(config, data.tokenizer)
    if (
        config.train.epochs is not None
        and not data.shards.train.is_complete
        and not config.data.tokens_per_epoch
    ):
        raise ConfigError(
            "train.epochs: nobody knows how long an epoch of a stream is; give train.steps, or say with "
            "data.tokens_per_epoch after how many tokens an epoch ends"
        )
    order = training_order(config, data, objective)
    objective.evaluation_batches(data.shards.val, batch_windows=1)  # raises where there is nothing to score
    epoch = order.windows_per_epoch if config.train.epochs is not None else None
    return resolve(config, data.tokenizer, objective, device, windows_per_epoch=epoch), order


def resolve(
    config: RunConfig,
    tokenizer: Tokenizer,
    objective: Objective,
    device: Device,
    *,
    windows_per_epoch: int | None,
) -> Plan:
    """The plan of a run whose ids come from this tokenizer. windows_per_epoch: wanted where train.epochs is given."""
    seq_len = config.train.seq_len or config.model.max_seq_len
    sized = config.model.model_copy(update={"vocab_size": config.model.vocab_size or tokenizer.vocab_size})
    model = on_meta(sized)
    plan = make_plan(
        config,
        device,
        vocab_size=tokenizer.vocab_size,
        start_id=default_start_id(tokenizer),
        windows_per_epoch=windows_per_epoch,
        training_flops_per_token=count_flops(model, objective.decoder_len, objective.encoder_len).training
        / seq_len,
    )
    return plan if isinstance(config.train.micro_batch, int) else within_memory(plan, objective, model)


def _pinned(config: RunConfig, shards: TokenData) -> RunConfig:
    """The config with the commits of data sets on a hub, so that the run goes on with the bytes it began with."""

    def pinned(path: str, passport: Mapping[str, Any]) -> str:
        revision = passport["source"].get("revision")
        return path if revision is None or "@" in path else f"{path}@{revision}"

    data, passport = config.data, shards.passport
    if data.mixture:
        members = zip(data.mixture, passport["mixture"].values(), strict=True)
        mixture = tuple(m.model_copy(update={"path": pinned(m.path, made)}) for m, made in members)
        return config.model_copy(update={"data": data.model_copy(update={"mixture": mixture})})
    return config.model_copy(update={"data": data.model_copy(update={"path": pinned(data.path, passport)})})


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


def preparing_progress(console: Console) -> Report:
    """A progress callback that says how far preparing has come."""
    line = StatusLine(console, after_s=1)

    def show(progress: Progress) -> None:
        line.show(f"preparing data, {progress}")
        if progress.share == 1:
            line.clear()

    return show
