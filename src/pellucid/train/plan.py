"""A config and a machine → everything that is decided before the first update, with the reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from pellucid.config import from_tree, merge, to_tree
from pellucid.data.objectives import PrefixConfig
from pellucid.errors import ConfigError
from pellucid.model import EncoderDecoderConfig
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision, choose_precision
from pellucid.train.config import RunConfig, TrainConfig
from pellucid.train.techniques import why_no_short_attention

USUAL_TOKENS = {"cpu": 4096, "mps": 16384, "cuda": 65536}
"""Tokens of a forward pass where no micro-batch is named: enough for full speed. Fewer where memory is short."""
_WORTH_COMPILING = {"cpu": 2e13, "mps": math.inf, "cuda": 3e16}
"""Training FLOPs above which building kernels (half a minute, with the trial) is repaid. On a GPU a guess."""
_WORTH_COMPILING_SECONDS = 120
"""The same for a run that ends by the clock. docs/experiments.md has what both rest on."""


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
    world: int = 1
    """Processes that share each batch."""
    flops_per_token: int = 0
    """Of training, forward and backward: of matrix products."""

    @property
    def share_windows(self) -> int:
        """Windows of a batch that one process takes."""
        return self.micro_batch * self.accumulation

    @property
    def batch_windows(self) -> int:
        return self.share_windows * self.world

    def shared_by(self, world: int) -> Plan:
        """The same batches, dealt out to so many processes; in smaller pieces where a share is not a multiple of
        micro_batch. Raises ConfigError where a batch cannot be shared equally.
        """
        windows = self.batch_windows
        if world == 1:
            return self
        if windows % world:
            possible = [str(d) for d in range(1, windows + 1) if windows % d == 0]
            raise ConfigError(
                f"train.batch_tokens ({self.config.train.batch_tokens}) is {windows} windows of {self.seq_len} tokens, "
                f"which {world} processes cannot share equally; start {' or '.join(possible)} processes, or make it a "
                f"multiple of {world} x {self.seq_len} = {world * self.seq_len}"
            )
        share = windows // world
        pieces = largest_divisor(share, min(share, self.micro_batch))
        shared = replace(self, world=world, micro_batch=pieces, accumulation=share // pieces)
        return shared.with_micro_batch(pieces, f"{world} processes")

    def with_micro_batch(self, micro_batch: int, why: str) -> Plan:
        """The same batches in other pieces. `micro_batch` divides share_windows."""
        train = self.config.train.model_copy(update={"micro_batch": micro_batch})
        cut = replace(
            self,
            config=self.config.model_copy(update={"train": train}),
            micro_batch=micro_batch,
            accumulation=self.share_windows // micro_batch,
        )
        before, now = (
            _batch_line(plan.config, plan.seq_len, plan.micro_batch, plan.world) for plan in (self, cut)
        )
        others = [line for line in self.reasons if not line.startswith(before.partition("=")[0])]
        return replace(cut, reasons=(*others, f"{now} ({why})"))


def make_plan(
    config: RunConfig,
    device: Device,
    *,
    vocab_size: int,
    start_id: int,
    windows_per_epoch: int | None,
    training_flops_per_token: float,
) -> Plan:
    """Decide what the config leaves open. Raises ConfigError for what cannot work.

    vocab_size: the tokenizer's; start_id: what an encoder-decoder's targets begin after where the config names
    nothing; windows_per_epoch: of the training split at the run's window length, which train.epochs needs.
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
    if train.tf32 and not device.has_tf32:
        raise ConfigError(
            f"train.tf32: TF32 is a format of NVIDIA GPUs from Ampere on, and the device here is {device.type}"
            f"{' without it' if device.type == 'cuda' else ''}; leave it out"
        )
    windows = train.batch_tokens // seq_len
    named = train.micro_batch if isinstance(train.micro_batch, int) else None
    micro_batch = named or largest_divisor(windows, USUAL_TOKENS[device.type] // seq_len)
    steps = count_steps(train, windows=windows, windows_per_epoch=windows_per_epoch)
    try:
        precision = choose_precision(train.precision, device, tf32=train.tf32)
    except ConfigError as error:
        raise ConfigError(f"train.precision: {error}") from None
    compiled, why = _decide_compile(config, device, steps, training_flops_per_token)
    techniques = train.techniques.resolved(device)
    resolved = {
        "data": {"path": str(Path(path).absolute()) if Path(path := config.data.path).exists() else path},
        "model": {"vocab_size": model.vocab_size or vocab_size, **_as_trained(config, start_id)},
        "train": {
            "seq_len": seq_len,
            "micro_batch": micro_batch,
            "precision": precision.name,
            "compile": compiled,
            "techniques": to_tree(techniques),
        },
    }
    return Plan(
        config=from_tree(RunConfig, merge(to_tree(_with_warmup_in_steps(config)), resolved)),
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
            techniques.line,
            *_attention_line(config, precision, seq_len),
            *_warmup_line(train, steps),
            _batch_line(config, seq_len, micro_batch),
        ),
        flops_per_token=round(training_flops_per_token),
    )


def _attention_line(config: RunConfig, precision: Precision, seq_len: int) -> list[str]:
    """Where there could be short attention: whether there is."""
    if precision.device.type != "cpu":
        return []
    why_not = why_no_short_attention(config, precision, seq_len)
    return [f"short attention {'on' if why_not is None else f'off ({why_not})'}"]


def _warmup_line(train: TrainConfig, steps: int | None) -> list[str]:
    warmup = train.schedule.in_steps(train.batch_tokens).warmup_steps
    if steps is None or warmup is None or warmup < steps:
        return []
    return [f"the warmup ({warmup:,} steps) takes the whole run ({steps:,}): the rate only rises"]


def _batch_line(config: RunConfig, seq_len: int, micro_batch: int, world: int = 1) -> str:
    pieces = config.train.batch_tokens // seq_len // micro_batch // world
    shares = f"{world} x " if world > 1 else ""
    return (
        f"batch {config.train.batch_tokens:,} tokens = {shares}{pieces} x {micro_batch} windows of {seq_len}"
    )


def _with_warmup_in_steps(config: RunConfig) -> RunConfig:
    train = config.train
    schedule = train.schedule.in_steps(train.batch_tokens)
    return config.model_copy(update={"train": train.model_copy(update={"schedule": schedule})})


def count_steps(train: TrainConfig, *, windows: int, windows_per_epoch: int | None) -> int | None:
    """The updates that a run is said to be long: in steps, tokens or epochs; None where time alone ends it.

    windows: of a batch; windows_per_epoch: as for `make_plan`.
    """
    if train.tokens is not None:
        return math.ceil(train.tokens / train.batch_tokens)
    if train.epochs is not None:
        assert windows_per_epoch is not None
        return max(1, math.ceil(train.epochs * windows_per_epoch / windows))
    return train.steps


def _decide_compile(
    config: RunConfig, device: Device, steps: int | None, flops_per_token: float
) -> tuple[bool, str]:
    train = config.train
    if train.compile and not device.can_compile:
        raise _cannot_compile(device)
    if train.activation_checkpointing == "selective":
        if train.compile:
            raise ConfigError(
                "train.compile: compiled blocks hide their operations from train.activation_checkpointing "
                "'selective'; leave one of them out, or choose 'full'"
            )
        return False, "selective activation checkpointing looks at single operations"
    if train.compile is not None:
        if train.compile and not (tried := device.tried()).can_compile:
            raise _cannot_compile(tried)
        return train.compile, "as asked"
    if not device.can_compile:
        return False, device.compile_reason
    if train.max_seconds is not None and train.max_seconds < _WORTH_COMPILING_SECONDS:
        return False, "a run of under two minutes does not repay it"
    if steps is not None and steps * train.batch_tokens * flops_per_token < _WORTH_COMPILING[device.type]:
        return False, "a run this short does not repay it"
    tried = device.tried()
    return tried.can_compile, tried.compile_reason


def _cannot_compile(device: Device) -> ConfigError:
    return ConfigError(
        f"train.compile: true cannot be had on {device.type} here ({device.compile_reason}); mend that, or give "
        "train.compile=false"
    )


def _as_trained(config: RunConfig, start_id: int) -> dict[str, int | str]:
    """What generation must know of the objective and the tokenizer, as keys of the model."""
    model, objective = config.model, config.data.objective
    if isinstance(model, EncoderDecoderConfig):
        return {"start_id": start_id if model.start_id is None else model.start_id}
    if model.prompt_mask is None and isinstance(objective, PrefixConfig):
        return {"prompt_mask": "prefix"}
    return {}


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most so large, and at least 1."""
    return max(d for d in range(1, max(1, most) + 1) if number % d == 0)
