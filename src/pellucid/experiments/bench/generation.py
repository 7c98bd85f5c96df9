"""What a key/value cache saves: the same text written with it, and by reading everything anew for every token."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pellucid import tokenizers
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.errors import ConfigError
from pellucid.generate.opening import store_weights
from pellucid.model import ModelConfig, Transformer
from pellucid.model.decoding import Decoding
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.model.packed import Format
from pellucid.model.stats import count_cache_bytes
from pellucid.runtime.seeding import torch_generator
from pellucid.train.config import RunConfig

EACH, EVERY = 16, 32
"""Reading anew is timed for each of the first EACH new tokens, and then for every EVERY-th."""
WARMUP_TOKENS = 3

Seconds = NDArray[np.float64]
Progress = Callable[[int, int], object]
"""Told how many tokens have been written, and of how many."""


@dataclass(frozen=True)
class LengthSpeed:
    """So many new tokens: seconds for a whole batch of them, and the cache's size in bytes."""

    new_tokens: int
    cached_s: float
    recomputed_s: float
    speedup: float
    cached_tokens_per_s: float
    """Of all rows of the batch."""
    recomputed_tokens_per_s: float
    cache_bytes: int
    """Of the cache that decoding this many tokens allocates."""
    planned_cache_bytes: int
    """What `model.stats.count_cache_bytes` says of it before there is one."""


@dataclass(frozen=True)
class CacheSpeed:
    """A model in one format and with one batch size, over growing lengths."""

    form: str
    """Of the weights."""
    batch_size: int
    prompt_tokens: int
    lengths: Sequence[LengthSpeed]
    crossover: int | None
    """The number of new tokens from which on the cache takes less time in all; None: it never does here."""
    cached_s: Sequence[float]
    """Of each new token alone; the first one's is the reading of the prompt, its cache's allocation included."""
    recomputed_s: Sequence[float]
    """The same without a cache: timed at `measured`, on a straight line between."""
    measured: Sequence[int]
    largest_difference: float
    """Between a logit with the cache and the same without one: rounding, and nothing else."""
    threads: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def random_model(config: RunConfig, positions: int) -> Transformer:
    """A run's model before training, with room for so many positions: speed depends on shapes alone."""
    model = config.model
    tokenizer = config.data.tokenizer
    vocab_size = (
        model.vocab_size
        or tokenizers.build(tokenizer, lambda: texts(BuiltinSource("shakespeare"))).vocab_size
    )
    sizes = {"vocab_size": vocab_size, "max_seq_len": max(positions, model.max_seq_len)}
    sized: ModelConfig = model.model_copy(update=sizes)
    return sized.build(seed=config.train.seed)


def room_of(model: Transformer, prompt_tokens: int) -> int:
    """How many new tokens fit the model's context behind such a prompt; below 1 where the prompt does not."""
    if prompt_tokens >= model.max_seq_len:
        return 0
    return model.max_seq_len - (prompt_tokens if model.continues_prompt else 1)


def measure_cache(
    model: Transformer,
    form: Format,
    batch_size: int,
    lengths: Sequence[int],
    *,
    prompt_tokens: int = 16,
    rounds: int = 1,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> CacheSpeed:
    """Write the longest of `lengths`, greedily, after a prompt of random ids; each time is the median of `rounds`.

    With the cache, every token is timed. In between, the same ids are read without one (an encoder-decoder's source
    too), by the same model and kernels and with logits of the last position alone: for each of the first new tokens,
    then for every 32nd, since reading all of them anew would take time that grows with the square of the length. What
    is shorter is the beginning of it. The model is a copy of this float32 one, stored as `generate` would.
    Raises ConfigError where the lengths do not fit the model's context.
    """
    lengths = sorted(set(lengths))
    room = room_of(model, prompt_tokens)
    if room < 1:
        raise ConfigError(
            f"a prompt of {prompt_tokens} leaves no room in the model's {model.max_seq_len} positions; "
            "choose a shorter one"
        )
    if not lengths or lengths[0] < 1 or lengths[-1] > room:
        raise ConfigError(
            f"new tokens {', '.join(map(str, lengths))}: the model has room for 1 to {room} behind a prompt of "
            f"{prompt_tokens}; choose other lengths or a shorter prompt"
        )
    model = copy.deepcopy(model)
    store_weights(model, form)
    generator = torch_generator("cpu", seed, "benchmark prompt")
    ids = torch.randint(model.vocab_size, (batch_size, prompt_tokens), generator=generator)
    prompt = ids.to(model.device)
    with torch.inference_mode(), evaluation_mode(model):
        _write(model, prompt, min(WARMUP_TOKENS, lengths[-1]))
        times = [_write(model, prompt, lengths[-1], on_progress) for _ in range(rounds)]
        caches = [_cache_bytes(model, prompt, length) for length in lengths]
    cached = np.median([one.cached for one in times], axis=0)
    recomputed = np.median([one.recomputed for one in times], axis=0)
    pairs = zip(lengths, caches, strict=True)
    return CacheSpeed(
        form=form,
        batch_size=batch_size,
        prompt_tokens=prompt_tokens,
        lengths=[_at(length, batch_size, cached, recomputed, sizes) for length, sizes in pairs],
        crossover=find_crossover(cached, recomputed),
        cached_s=cached.tolist(),
        recomputed_s=recomputed.tolist(),
        measured=measured_tokens(lengths[-1]),
        largest_difference=max(one.largest_difference for one in times),
        threads=torch.get_num_threads(),
    )


def measured_tokens(count: int) -> list[int]:
    """Which of `count` new tokens are also written without a cache: dense where the two cross, then thinly."""
    return sorted({*range(1, min(EACH, count) + 1), *range(EVERY, count + 1, EVERY), count})


def find_crossover(cached: Seconds, recomputed: Seconds) -> int | None:
    """The least n such that the first m tokens take less time with the cache for every m from n on.

    Both are seconds of each token alone.  None where the cache is not ahead at the end.
    """
    behind = np.flatnonzero(np.cumsum(cached) >= np.cumsum(recomputed))
    if len(behind) == 0:
        return 1
    first = int(behind[-1]) + 2  # of index i there are i + 1 tokens, and the next one is wanted
    return first if first <= len(cached) else None


@dataclass(frozen=True)
class _Times:
    """Seconds of each new token."""

    cached: Seconds
    recomputed: Seconds
    largest_difference: float


def _write(
    model: Transformer, prompt: Int[Tensor, "B T"], count: int, on_progress: Progress | None = None
) -> _Times:
    wanted, cached, anew = frozenset(measured_tokens(count)), list[float](), dict[int, float]()
    difference = 0.0
    began = _now(model.device)
    rows = Decoding(model, prompt, count)
    for number in range(1, count + 1):
        logits = rows.next_logits()
        new = logits.argmax(dim=-1)
        cached.append(_now(model.device) - began)
        if number in wanted:
            began = _now(model.device)
            again = _read_anew(model, prompt, rows.ids)
            again.argmax(dim=-1)
            anew[number] = _now(model.device) - began
            difference = max(difference, float((again - logits).abs().max()))
        if on_progress is not None:
            on_progress(number, count)
        began = _now(model.device)
        rows.append(new)
    each = np.interp(np.arange(1, count + 1), list(anew), list(anew.values()))
    return _Times(np.array(cached), each, difference)


def _read_anew(
    model: Transformer, prompt: Int[Tensor, "B T"], ids: Int[Tensor, "B T_all"]
) -> Float[Tensor, "B V"]:
    """The logits after `ids`, with nothing kept from before."""
    inputs: Mapping[str, Tensor] = {}
    if not model.continues_prompt:
        inputs = {"encoder_ids": prompt}
    elif getattr(model.config, "prompt_mask", None) == "prefix":
        inputs = {"prefix_lengths": prompt.new_full((prompt.shape[0],), prompt.shape[1])}
    states = cast(LanguageModel, model).hidden(ids, **inputs).states
    return model.head(states[:, -1:])[:, -1]


def _cache_bytes(model: Transformer, prompt: Int[Tensor, "B T"], new_tokens: int) -> tuple[int, int]:
    """(of the cache that there is, of what was planned)."""
    cache = Decoding(model, prompt, new_tokens).cache
    source_len = None if model.continues_prompt else prompt.shape[1]
    planned = count_cache_bytes(
        model, prompt.shape[0], cache.max_length, cache.keys.dtype, source_len=source_len
    )
    return cache.bytes, planned


def _at(
    new_tokens: int, batch_size: int, cached: Seconds, recomputed: Seconds, cache_bytes: tuple[int, int]
) -> LengthSpeed:
    cached_s, recomputed_s = float(cached[:new_tokens].sum()), float(recomputed[:new_tokens].sum())
    tokens = new_tokens * batch_size
    return LengthSpeed(
        new_tokens=new_tokens,
        cached_s=cached_s,
        recomputed_s=recomputed_s,
        speedup=recomputed_s / cached_s,
        cached_tokens_per_s=tokens / cached_s,
        recomputed_tokens_per_s=tokens / recomputed_s,
        cache_bytes=cache_bytes[0],
        planned_cache_bytes=cache_bytes[1],
    )


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
