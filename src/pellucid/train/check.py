"""Would this run work? Its data is what its manifest says, its first loss is about ln V, and it can learn."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console

from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.runtime.console import message_console
from pellucid.runtime.device import choose_device
from pellucid.train.building import build_model, build_state, build_updater, make_deterministic
from pellucid.train.config import RunConfig
from pellucid.train.opening import build_objective, open_data, plan_run
from pellucid.train.plan import Plan

_TOLERANCE_NATS = 0.5
_OVERFIT_STEPS, _OVERFIT_WINDOWS, _OVERFIT_SHARE = 60, 2, 0.5


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    passed: bool


@dataclass(frozen=True)
class CheckReport:
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "findings": [asdict(finding) for finding in self.findings]}


def check_run(config: RunConfig, *, device: str | None = None, console: Console | None = None) -> CheckReport:
    """Verify the data's hashes, the first loss, and that a small batch can be learned by heart. Writes nothing."""
    console = console or message_console()
    make_deterministic()
    data = open_data(config)
    verified = Finding("data", f"{data.shards.directory}: every SHA-256 is the recorded one", True)
    plan, order = plan_run(config, data, choose_device(device))
    plan = replace(plan, compiled=False)
    windows = min(_OVERFIT_WINDOWS, plan.batch_windows)
    with TrainingLoader(
        data.shards.train,
        order,
        objective=build_objective(plan.config, data.tokenizer),
        batch_windows=windows,
        micro_batch=windows,
        device=plan.device.torch,
        read_ahead=0,
    ) as loader:
        batch = loader.step(0)
    losses = _overfit(plan, batch)
    assert plan.config.model.vocab_size is not None
    uniform = math.log(plan.config.model.vocab_size)
    return CheckReport(
        (
            verified,
            Finding(
                "first loss",
                f"{losses[0]:.3f} nats a token; a model that knows nothing has ln {plan.config.model.vocab_size} = "
                f"{uniform:.3f}",
                abs(losses[0] - uniform) < _TOLERANCE_NATS,
            ),
            Finding(
                "learning",
                f"loss on {windows} windows went from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} updates",
                losses[-1] < _OVERFIT_SHARE * losses[0],
            ),
        )
    )


def _overfit(plan: Plan, batch: list[TensorBatch]) -> list[float]:
    """The losses while one small batch is learned by heart, by the run's own update at its own peak rate."""
    # Label smoothing would put a floor under the loss.
    train = plan.config.train.model_copy(update={"label_smoothing": 0.0, "z_loss": 0.0})
    plan = replace(plan, config=plan.config.model_copy(update={"train": train}))
    model = build_model(plan)
    update = build_updater(plan, model, build_state(plan, model))
    losses: list[float] = []
    while len(losses) < _OVERFIT_STEPS and not (losses and losses[-1] < _OVERFIT_SHARE * losses[0]):
        losses.append(update(batch, train.lr * min(1.0, (len(losses) + 1) / 10)).loss)
    return losses
