"""A config and a machine → everything that is decided before the first update, with the reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pellucid.config import from_tree, merge, to_tree
from pellucid.data.objectives import PrefixConfig
from pellucid.errors import ConfigError
from pellucid.model import EncoderDecoderConfig
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision, choose_precision
from pellucid.train.config import RunConfig

_MICRO_BATCH_TOKENS = {"cpu": 4096, "mps": 16384, "cuda": 65536}
"""Tokens of a forward pass where no micro-batch is named: enough for full speed. Fewer where memory is short."""
_WORTH_COMPILING = 3e14
"""Training FLOPs above which building kernels (tens of seconds on a CPU) is repaid."""


@dataclass(frozen=True)
class Plan:
    """A resolved run: `config` holds every choice, so that the same config later is the same run."""

    config: RunConfig
    device: Device
    precision: Precision
    seq_len: int
    micro_batch: int
    accumulation: int
    steps: int | None
    compiled: bool
    reasons: tuple[str, ...]
    """One line for each choice that was made for the user."""

    @property
    def batch_windows(self) -> int:
        return self.micro_batch * self.accumulation


def make_plan(
    config: RunConfig,
    device: Device,
    *,
    vocab_size: int,
    start_id: int,
    windows_per_epoch: int | None,
    training_flops_per_token: float,
    largest_micro_batch: int | None = None,
) -> Plan:
    """Decide what the config leaves open. Raises ConfigError for what cannot work.

    vocab_size: the tokenizer's; start_id: what an encoder-decoder's targets begin after where the config names
    nothing; windows_per_epoch: of the training split at the run's window length, which train.epochs needs;
    largest_micro_batch: the windows whose activations are estimated to fit the device (None: not known).
    """
    train, model = config.train, config.model
    seq_len = train.seq_len or model.max_seq_len
    if model.vocab_size is not None and model.vocab_size < vocab_size:
        raise ConfigError(
            f"model.vocab_size ({model.vocab_size}) is smaller than the tokenizer's {vocab_size} ids; "
            "leave it out, raise it, or choose another data.tokenizer"
        )
    if model.attention.kernel == "flex" and device.type == "cpu":
        raise ConfigError(
            "model.attention.kernel: 'flex' has no backward pass on the device cpu; train with 'auto', which computes "
            "the same, or name another --device"
        )
    windows = train.batch_tokens // seq_len
    fitting = min(_MICRO_BATCH_TOKENS[device.type] // seq_len, largest_micro_batch or windows)
    micro_batch = train.micro_batch or _largest_divisor(windows, fitting)
    steps = train.steps
    if train.epochs is not None:
        assert windows_per_epoch is not None
        steps = max(1, math.ceil(train.epochs * windows_per_epoch / windows))
    try:
        precision = choose_precision(train.precision, device)
    except ConfigError as error:
        raise ConfigError(f"train.precision: {error}") from None
    compiled, why = _decide_compile(config, device, steps, training_flops_per_token)
    resolved = {
        "data": {"path": str(Path(path).absolute()) if Path(path := config.data.path).exists() else path},
        "model": {"vocab_size": model.vocab_size or vocab_size, **_as_trained(config, start_id)},
        "train": {
            "seq_len": seq_len,
            "micro_batch": micro_batch,
            "precision": precision.name,
            "compile": compiled,
        },
    }
    return Plan(
        config=from_tree(RunConfig, merge(to_tree(config), resolved)),
        device=device,
        precision=precision,
        seq_len=seq_len,
        micro_batch=micro_batch,
        accumulation=windows // micro_batch,
        steps=steps,
        compiled=compiled,
        reasons=(
            f"device {device.type} ({device.reason})",
            f"precision {precision.name} ({precision.reason})",
            f"torch.compile {'on' if compiled else 'off'} ({why})",
            f"batch {train.batch_tokens:,} tokens = {windows // micro_batch} x {micro_batch} windows of {seq_len}",
        ),
    )


def _decide_compile(
    config: RunConfig, device: Device, steps: int | None, flops_per_token: float
) -> tuple[bool, str]:
    train = config.train
    if train.compile and not device.can_compile:
        raise ConfigError(f"train.compile: true cannot be had on {device.type} here: {device.compile_reason}")
    if train.activation_checkpointing == "selective":
        if train.compile:
            raise ConfigError(
                "train.compile: compiled blocks hide their operations from train.activation_checkpointing "
                "'selective'; leave one of them out, or choose 'full'"
            )
        return False, "selective activation checkpointing looks at single operations"
    if train.compile is not None:
        return train.compile, "as asked"
    if not device.can_compile:
        return False, device.compile_reason
    if train.max_seconds is not None and train.max_seconds < 300:
        return False, "a run of under five minutes does not repay it"
    if steps is not None and steps * train.batch_tokens * flops_per_token < _WORTH_COMPILING:
        return False, "a run this short does not repay it"
    return True, device.compile_reason


def _as_trained(config: RunConfig, start_id: int) -> dict[str, int | str]:
    """What generation must know of the objective and the tokenizer, as keys of the model."""
    model, objective = config.model, config.data.objective
    if isinstance(model, EncoderDecoderConfig):
        return {"start_id": start_id if model.start_id is None else model.start_id}
    if model.prompt_mask is None and isinstance(objective, PrefixConfig):
        return {"prompt_mask": "prefix"}
    return {}


def _largest_divisor(number: int, most: int) -> int:
    return max(d for d in range(1, max(1, most) + 1) if number % d == 0)
