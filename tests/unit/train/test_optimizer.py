"""The optimizer that a run builds, and the memory that its state takes."""

from io import StringIO

import pytest
import torch
from rich.console import Console

from pellucid.model import DecoderConfig
from pellucid.model.stats import on_meta
from pellucid.optim import AdafactorConfig, MuonConfig, SGDConfig
from pellucid.runtime.device import Device
from pellucid.train.config import TrainConfig
from pellucid.train.cost import estimate_cost
from pellucid.train.optimizer import build_optimizer, count_training_state

CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")
MODEL = DecoderConfig(vocab_size=13, d_model=8, num_layers=2, num_heads=2, max_seq_len=6)


def test_the_runs_optimizer_has_the_runs_rate_and_every_parameter(tiny_config):
    model = MODEL.build()
    train = tiny_config("train.optimizer.kind=sgd", "train.lr=0.25").train
    optimizer = build_optimizer(model, train)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_training_state_is_weights_gradients_and_what_the_optimizer_keeps():
    model = on_meta(MODEL)
    n = 4 * sum(parameter.numel() for parameter in model.parameters())
    train = TrainConfig(steps=1)
    state = count_training_state(model, train)
    assert (state.weights, state.gradients, state.optimizer, state.total) == (n, n, 2 * n, 4 * n)
    others = (SGDConfig(), MuonConfig(), AdafactorConfig())
    kept = [
        count_training_state(model, train.model_copy(update={"optimizer": other})).optimizer
        for other in others
    ]
    assert kept[0] == n
    assert n < kept[1] < 2 * n
    assert kept[2] < n / 2


@pytest.mark.parametrize("kind", ["muon", "adafactor"])
def test_a_plan_counts_the_state_of_its_own_optimizer_and_says_who_updates_what(tiny_config, workdir, kind):
    cost = estimate_cost(config := tiny_config(f"train.optimizer.kind={kind}"), CPU)
    model = config.model.model_copy(update={"vocab_size": 257})
    assert cost.optimizer_bytes == count_training_state(on_meta(model), config.train).optimizer
    assert sum(row.parameters for row in cost.updates) == cost.parameters
    assert {row.method for row in cost.updates} == ({"muon", "adamw"} if kind == "muon" else {kind})
    said = [value for _, value in cost.rows()]
    assert all(str(row) in said for row in cost.updates)


def test_a_run_says_at_its_start_who_updates_what(train_tiny):
    console = Console(file=StringIO(), width=1000)
    train_tiny("train.steps=1", "train.optimizer.kind=muon", console=console)
    said = console.file.getvalue()
    assert "matrix, residual_matrix by muon: " in said
    assert "embedding, gain by adamw: " in said
