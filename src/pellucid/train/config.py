"""A run as one value: what is trained, on what, how, and where it is kept."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from pellucid.config import Config
from pellucid.data.config import DataConfig
from pellucid.data.objectives import require_fit
from pellucid.model import DecoderConfig, ModelConfig, Recompute
from pellucid.model.interface import Role
from pellucid.optim import AdamWConfig, CosineConfig, OptimizerConfig, ScheduleConfig
from pellucid.runtime.precision import PrecisionName
from pellucid.train.guard import GuardConfig
from pellucid.train.techniques import Techniques


class TrainConfig(Config):
    """How long, how much at a time, how fast, and what is watched."""

    steps: int | None = Field(default=None, gt=0)
    """Number of updates."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training split, instead of steps."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens that the run learns from, instead of steps: whole steps of batch_tokens, rounded up."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Seconds of wall time, from when the data is open, after which the run ends, its schedule fitted to them. With
    another length besides, whichever ends first."""
    batch_tokens: int = Field(default=8192, gt=0)
    """Tokens an update sees, whatever the micro-batch."""
    seq_len: int | None = Field(default=None, gt=0)
    """Tokens of a training window. Left out: model.max_seq_len."""
    micro_batch: int | Literal["auto"] | None = None
    """Windows of one forward pass; accumulation is derived, so that batch_tokens stays. auto: the largest one that
    fits, found by trying before the run. Left out: estimated for the device."""
    out_of_memory: Literal["stop", "halve"] = "stop"
    """What follows when an update does not fit into memory: stop, saying what to change; or halve the micro-batch and
    do the same update again."""
    precision: PrecisionName = "auto"
    """Format of matrix products; weights and optimizer state are float32 always. auto picks for the hardware."""
    tf32: bool = False
    """Whether a GPU may compute what stays in float32 with 10 bits of mantissa: several times faster, rounded at
    2⁻¹¹ instead of 2⁻²⁴."""
    compile: bool | None = None
    """Whether torch.compile builds the blocks. Left out: where a compiler is found and the run is long enough."""
    techniques: Techniques = Techniques()
    """Ways to compute the same in less time."""
    activation_checkpointing: Recompute = "none"
    """What the backward pass computes again inside blocks, for memory: full, everything (a third more time);
    selective, all but matrix products and attention."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target distribution spread over all ids."""
    final_dropout: float | None = Field(default=None, ge=0, lt=1)
    """What model.dropout, and model.attention.dropout where there is any, move to over the run, linearly. Left out:
    they stay."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log²Σexp(logits) in what is learned; 1e-4 keeps logits from drifting. No reported loss has it."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    optimizer: OptimizerConfig = AdamWConfig()
    """How gradients become updates."""
    schedule: ScheduleConfig = CosineConfig()
    """How the learning rate moves over the run."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of all gradients together; longer ones are scaled down to it."""
    guard: GuardConfig = GuardConfig()
    """What is done where numbers stop being finite, and what counts as a spike of the loss."""
    weight_average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, such as 0.999: what evaluation, samples and finished
    checkpoints use. Costs one more copy of the weights. Left out: none is kept."""
    seed: int = Field(default=0, ge=0)
    """Decides initial weights, the order of data, dropout and samples."""
    eval_every: int = Field(default=250, gt=0)
    """Updates between evaluations on the validation split."""
    eval_tokens: int | None = Field(default=None, gt=0)
    """Evaluate on this many first targets of the validation split. Left out: on all of it."""
    checkpoint_every: int = Field(default=250, gt=0)
    """Updates between checkpoints; the best one by validation loss is saved besides."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Number of newest checkpoints kept, besides the best."""
    sample_prompt: str = "\n"
    """What the sample of text at each evaluation continues."""
    sample_tokens: int = Field(default=200, ge=0)
    """Length of that sample; 0 for none."""

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not (value is None or value == "auto" or is_count):
            raise ValueError(f"must be a whole number more than 0, or 'auto', not {value!r}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        lengths = [name for name in ("steps", "epochs", "tokens") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ValueError(
                f"{' and '.join(lengths)} {'both' if len(lengths) == 2 else 'all'} say how long; give one of them (an "
                f"empty value, as in train.{lengths[0]}=, takes one out)"
            )
        if not lengths and self.max_seconds is None:
            raise ValueError("nothing says how long; give steps, epochs, tokens or max_seconds")
        return self


class RunDirectoryConfig(Config):
    """Where a run is kept."""

    name: str = Field(default="run", pattern=r"^\w[\w.-]*$")
    """What the run directory is called when none is named: runs/<name>-001, -002, …"""
    dir: str | None = None
    """The run directory."""


class RunConfig(Config):
    """Everything that decides a run."""

    model: ModelConfig = DecoderConfig()
    """The architecture."""
    data: DataConfig = DataConfig()
    """The text and how it is cut into ids."""
    train: TrainConfig
    """How it is trained."""
    run: RunDirectoryConfig = RunDirectoryConfig()
    """Where it is kept."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        objective, train = self.data.objective, self.train
        require_fit(objective, self.model.kind)
        roles = get_args(Role)
        if unknown := [role for role in train.optimizer.decayed_roles if role not in roles]:
            raise ValueError(
                f"train.optimizer.decayed_roles: no parameter has the role {unknown[0]!r} (roles: {', '.join(roles)})"
            )
        if train.compile and train.activation_checkpointing == "selective":
            raise ValueError(
                "train.compile: compiled blocks hide their operations from train.activation_checkpointing "
                "'selective'; leave one of them out, or choose 'full'"
            )
        seq_len, longest = train.seq_len or self.model.max_seq_len, self.model.max_seq_len
        if seq_len > longest:
            raise ValueError(f"train.seq_len ({seq_len}) is more than model.max_seq_len ({longest})")
        if fault := objective.obstacle(seq_len=seq_len, special_tokens=self.data.tokenizer.special_tokens):
            raise ValueError(fault)
        if train.batch_tokens % seq_len:
            below = max(seq_len, train.batch_tokens // seq_len * seq_len)
            raise ValueError(
                f"train.batch_tokens ({train.batch_tokens}) is not a multiple of the window length ({seq_len}); "
                f"try {below}" + (f" or {below + seq_len}" if below + seq_len != below else "")
            )
        windows = train.batch_tokens // seq_len
        if isinstance(train.micro_batch, int) and windows % train.micro_batch:
            divisors = [d for d in range(1, windows + 1) if windows % d == 0]
            raise ValueError(
                f"train.micro_batch ({train.micro_batch}) does not divide the {windows} windows of a batch "
                f"(train.batch_tokens / window length); choose one of {', '.join(map(str, divisors))}"
            )
        return self
