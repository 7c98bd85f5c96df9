"""A step that went wrong, made again from its flight-recorder bundle: does it go wrong again, and where first?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.config import differences, from_tree, override, to_tree
from pellucid.errors import ConfigError
from pellucid.model.dropout import move_dropout
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.precision import allow_tf32
from pellucid.train.building import build_model, build_state, build_updater, make_deterministic
from pellucid.train.bundle import Bundle, json_number
from pellucid.train.config import RunConfig
from pellucid.train.origin import Origin, find_origin
from pellucid.train.plan import Plan, make_plan
from pellucid.train.rundir import EXACT, environment

CHANGEABLE = (
    "train.precision=",
    "train.tf32=",
    "train.compile=",
    "train.techniques.",
    "train.activation_checkpointing=",
    "train.label_smoothing=",
    "train.z_loss=",
    "model.attention.kernel=",
)
"""What decides how loss and gradient are computed from given weights and a given batch."""


@dataclass(frozen=True)
class Replay:
    """What came of the step the second time."""

    bundle: str
    step: int
    """The number of the step, as it was logged."""
    lr: float
    recorded_loss: float
    recorded_grad_norm: float
    loss: float
    grad_norm: float
    origin: Origin | None
    """What was not finite first; None where everything was finite, as it is computed without compiled kernels."""
    bad_weights: tuple[str, ...]
    """The parameters that were not finite before the step."""
    changes: tuple[str, ...]
    """How this machine differs from the one that recorded the step, where that matters to the bit."""
    advice: str
    """What to try next."""
    asked: tuple[str, ...] = ()
    """The overrides it was made with, if any: then it is another step, and need not be the recorded one."""
    recorded_origin: Mapping[str, Any] | None = None
    """What was not finite first when the step was recorded, as far as it was found: the fields of an `Origin`."""

    @property
    def is_reproduced(self) -> bool:
        """Whether loss and gradient norm are the recorded ones to the bit, and began to fail at the same place."""
        is_same_fault = self.recorded_origin is None or self.recorded_origin == _as_json(self.origin)
        is_same_loss = _same(self.loss, self.recorded_loss)
        return is_same_fault and is_same_loss and _same(self.grad_norm, self.recorded_grad_norm)

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("recorded_loss", "recorded_grad_norm", "loss", "grad_norm"):
            values[name] = json_number(values[name])
        return {"is_reproduced": self.is_reproduced, **values}


def replay(path: Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Replay:
    """Build the model of a bundle, make its step again, and look for the first thing that is not finite.

    On the device that recorded it, or the one named; with as many threads. `overrides` of `CHANGEABLE` keys make the
    step in another way: to see whether it would have been finite, or where the recorded way is not to be had. The
    process keeps the number of threads and torch's deterministic kernels. Raises CheckpointError for what is no
    bundle, ConfigError for overrides of other keys.
    """
    if others := [word for word in overrides if not word.startswith(CHANGEABLE)]:
        raise ConfigError(
            f"{others[0]}: it does not enter the loss and the gradient of a given batch and weights; what can be "
            f"changed here is {', '.join(key.rstrip('=.') for key in CHANGEABLE)}"
        )
    bundle = Bundle.read(path)
    if overrides:
        bundle = replace(bundle, config=from_tree(RunConfig, override(to_tree(bundle.config), overrides)))
    torch.set_num_threads(bundle.environment.get("threads", torch.get_num_threads()))
    chosen = choose_device(device or bundle.environment.get("device"))
    plan = _plan(bundle, chosen)
    make_deterministic()
    allow_tf32(plan.precision)
    model = build_model(plan, bundle.weights)
    if plan.config.train.final_dropout is not None:
        move_dropout(model, plan.config.train.final_dropout, bundle.progress)
    bad_weights = tuple(name for name, p in model.named_parameters() if not p.isfinite().all())
    state = build_state(plan, model)
    state.step = bundle.step
    if state.scaler and bundle.scaler:
        state.scaler.load_state_dict(dict(bundle.scaler))
    update = build_updater(plan, model, state)
    batch = [micro.to(chosen.torch) for micro in bundle.batch]
    # Before the update: should that succeed here, the weights would no longer be those of the step.
    origin = find_origin(update, batch, bundle.step, compiled=plan.compiled)
    outcome = update(batch, bundle.lr)
    is_cured = bool(overrides) and origin is None and outcome.status == "updated"
    cure = f"so made, all of it is finite: go on with {' '.join(overrides)}"
    return Replay(
        bundle=str(path),
        step=bundle.step + 1,
        lr=bundle.lr,
        recorded_loss=bundle.loss,
        recorded_grad_norm=bundle.grad_norm,
        loss=outcome.loss,
        grad_norm=outcome.grad_norm,
        origin=origin,
        bad_weights=bad_weights,
        changes=tuple(_changes(bundle.environment, chosen)),
        advice=cure if is_cured else _advice(plan, origin, bad_weights),
        asked=tuple(overrides),
        recorded_origin=bundle.origin,
    )


def _plan(bundle: Bundle, device: Device) -> Plan:
    """The run's plan again. Its config names every choice; how long the run is does not matter to one step."""
    config = bundle.config
    assert config.model.vocab_size is not None
    return make_plan(
        config,
        device,
        vocab_size=config.model.vocab_size,
        start_id=0,
        windows_per_epoch=1,
        training_flops_per_token=0.0,
    )


def _changes(recorded: Mapping[str, Any], device: Device) -> list[str]:
    now = environment(torch.get_num_threads(), device.type)
    known = [key for key in EXACT if key in recorded]
    return differences({key: recorded[key] for key in known}, {key: now[key] for key in known})


def _as_json(origin: Origin | None) -> Any:
    return None if origin is None else json.loads(json.dumps(asdict(origin)))


def _same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


def _advice(plan: Plan, origin: Origin | None, bad_weights: tuple[str, ...]) -> str:
    if bad_weights:
        return "the weights were bad before this step: start from an earlier checkpoint (--init), with a lower train.lr"
    if origin is None:
        if plan.compiled:
            return "without compiled kernels all of it is finite: try train.compile=false, and report this"
        return "all of it is finite here: nothing in the step itself needs a change"
    if origin.kind == "loss":
        return (
            "the batch's weights or targets are at fault, or the logits are too large: try train.z_loss=1e-4"
        )
    if plan.precision.name == "fp16":
        return "fp16 reaches only to 65,504: try train.precision=bf16, or fp32"
    wider = "" if plan.precision.name == "fp32" else ", or train.precision=fp32"
    slower = f"try a lower train.lr, a longer warmup{wider}"
    if origin.kind == "gradient":
        return f"the gradient has grown too large: {slower}"
    if origin.module == "Attention" and not plan.config.model.attention.qk_norm:
        return f"attention's scores have grown too large: try model.attention.qk_norm=true, a lower train.lr{wider}"
    return f"what is computed has grown too large: {slower}"
