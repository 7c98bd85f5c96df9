"""What every optimizer promises. A new member of the union is tested too, in both families."""

from functools import partial

import pytest
import torch
from torch import nn

from pellucid.config import Config, from_tree, members, to_tree
from pellucid.model import DecoderConfig, EncoderDecoderConfig, Transformer
from pellucid.model.stats import on_meta
from pellucid.optim import OptimizerConfig, group_by_role, report
from pellucid.train.state import TrainState

OPTIMIZERS = members(OptimizerConfig)
SIZES = {"vocab_size": 11, "d_model": 8, "num_heads": 2, "max_seq_len": 6}
PARTS = {
    "norm": {"kind": "layernorm"},
    "position": {"kind": "learned"},
    "bias": True,
    "tie_embeddings": False,
}
FAMILIES = {
    "decoder": partial(from_tree, DecoderConfig, {**SIZES, **PARTS, "num_layers": 1}),
    "experts": partial(
        from_tree,
        DecoderConfig,
        {**SIZES, "num_layers": 1, "feed_forward": {"kind": "moe", "num_experts": 3}},
    ),
    "encoder_decoder": partial(
        from_tree, EncoderDecoderConfig, {**SIZES, "num_encoder_layers": 1, "num_decoder_layers": 1}
    ),
}
LR = 0.02


@pytest.fixture(params=OPTIMIZERS)
def config(request: pytest.FixtureRequest) -> Config:
    return OPTIMIZERS[request.param]()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest):
    return FAMILIES[request.param]()


def groups_of(model: Transformer):
    return group_by_role(model, model.parameter_roles())


def start(config: Config, family, *, scaled: bool = False) -> TrainState:
    model = family.build(seed=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    return TrainState(model, config.build(groups_of(model), LR), scaler)


def go_on(state: TrainState, steps: int) -> None:
    """Updates with gradients and rates of their own, as a run has them."""
    for _ in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        for parameter in state.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in state.optimizer.param_groups:
            group["lr"] = LR / (state.step + 1) * group["lr_scale"]
        if state.scaler:
            state.scaler.scale(torch.ones(()))  # it takes its scale at the first use
            for parameter in state.model.parameters():
                parameter.grad *= state.scaler.get_scale()
            state.scaler.unscale_(state.optimizer)
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1


def test_every_parameter_moves_and_stays_finite(config: Config, family) -> None:
    state, before = start(config, family), family.build(seed=4)
    go_on(state, 1)
    for (name, moved), still in zip(state.model.named_parameters(), before.parameters(), strict=True):
        assert torch.isfinite(moved).all(), name
        assert not torch.equal(moved, still), name


def test_a_gradient_scaler_changes_no_update(config: Config, family) -> None:
    plain, scaled = start(config, family), start(config, family, scaled=True)
    go_on(plain, 3)
    go_on(scaled, 3)
    for (name, one), other in zip(plain.model.named_parameters(), scaled.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_resumed_run_goes_on_to_the_bit(config: Config, family) -> None:
    uninterrupted, killed = start(config, family), start(config, family)
    go_on(uninterrupted, 5)
    go_on(killed, 3)
    kept = {name: tensor.clone() for name, tensor in killed.tensors().items()}
    resumed = start(config, family)
    resumed.model.load_state_dict(killed.model.state_dict())
    resumed.restore(kept, killed.values())
    go_on(resumed, 2)
    for (name, one), other in zip(
        uninterrupted.model.named_parameters(), resumed.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other[1]), name
    expected, found = uninterrupted.tensors(), resumed.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_its_state_is_as_large_as_it_says(config: Config, family) -> None:
    """Without the counters of steps, which have no dimension."""
    state = start(config, family)
    go_on(state, 1)
    held = sum(tensor.nbytes for tensor in state.tensors().values() if tensor.dim())
    assert (
        config.state_bytes(groups_of(on_meta(family))) == config.state_bytes(groups_of(state.model)) == held
    )


def test_the_report_counts_every_parameter_once(config: Config, family) -> None:
    model = family.build()
    rows = report(config.build(groups_of(model), LR))
    roles = model.parameter_roles()
    for role in set(roles.values()):
        expected = [parameter.numel() for name, parameter in model.named_parameters() if roles[name] == role]
        mine = [row for row in rows if row.role == role]
        assert (sum(row.tensors for row in mine), sum(row.parameters for row in mine)) == (
            len(expected),
            sum(expected),
        )


def test_it_is_built_from_its_own_words(config: Config) -> None:
    assert from_tree(type(config), to_tree(config)) == config
    undescribed = [name for name, field in type(config).model_fields.items() if not field.description]
    assert undescribed == ["kind"]


def test_it_learns(config: Config) -> None:
    """A matrix towards another, by the size of its error."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    target = nn.Linear(6, 6)
    groups = group_by_role(layer, {"weight": "matrix", "bias": "bias"})
    optimizer = config.build(groups, 0.05)
    inputs = torch.randn(32, 6)
    losses: list[float] = []
    for _ in range(60):
        loss = (layer(inputs) - target(inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
