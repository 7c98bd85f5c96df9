import copy

import pytest
import torch
from torch import nn

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.optim import AdamWConfig, ParameterGroup, group_by_role

CONFIG = AdamWConfig(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)


def build_model() -> DecoderLM:
    return DecoderConfig(vocab_size=13, d_model=8, num_layers=1, num_heads=2, max_seq_len=6).build(seed=1)


def build(model: DecoderLM, lr: float = 0.01) -> torch.optim.Optimizer:
    return CONFIG.build(group_by_role(model, model.parameter_roles()), lr)


def give_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_every_group_is_fused_and_has_the_settings() -> None:
    optimizer = build(build_model())
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert group["fused"] is True
        assert (group["lr"], group["betas"], group["eps"]) == (0.01, (0.8, 0.9), 1e-6)
    decays = {group["role"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"embedding": 0.0, "gain": 0.0, "matrix": 0.3, "residual_matrix": 0.3}


def test_torchs_loop_can_be_asked_for() -> None:
    model = build_model()
    optimizer = AdamWConfig(fused=False).build(group_by_role(model, model.parameter_roles()), 0.01)
    assert not any(group["fused"] for group in optimizer.param_groups)


def test_updates_equal_those_of_torchs_plain_loop() -> None:
    model = build_model()
    other = copy.deepcopy(model)
    ours = build(model)
    roles = other.parameter_roles()
    decayed = {name for name, role in roles.items() if role in ("matrix", "residual_matrix")}
    theirs = torch.optim.AdamW(
        [
            {"params": [p for n, p in other.named_parameters() if n in decayed], "weight_decay": 0.3},
            {"params": [p for n, p in other.named_parameters() if n not in decayed], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.8, 0.9),
        eps=1e-6,
        foreach=False,
        fused=False,
    )
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(5):
        for optimizer, trained in ((ours, model), (theirs, other)):
            give_gradients(trained, step)
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (step + 1)  # as a schedule does
            optimizer.step()
    for (name, one), another in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, another, rtol=1e-6, atol=1e-6)
        assert (one - start[name]).abs().max() > 0.01, name


def test_the_first_update_is_the_formula() -> None:
    """m̂ = g and v̂ = g² after one step, so w ← w - lr · (g / (|g| + eps) + decay · w)."""
    weight = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    gain = nn.Parameter(torch.tensor([2.0]))
    groups = [ParameterGroup("matrix", {"weight": weight}), ParameterGroup("gain", {"gain": gain})]
    optimizer = AdamWConfig(weight_decay=0.5, eps=0.5).build(groups, lr=0.1)
    weight.grad, gain.grad = torch.tensor([[1.5, -0.5]]), torch.tensor([4.0])
    optimizer.step()
    torch.testing.assert_close(
        weight.detach(),
        torch.tensor([[2 - 0.1 * (1.5 / 2 + 0.5 * 2), -3 - 0.1 * (-0.5 / 1 + 0.5 * -3)]]),
    )
    torch.testing.assert_close(gain.detach(), torch.tensor([2 - 0.1 * 4 / 4.5]))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("beta1", 1.0, "at least 0 and less than 1"),
        ("beta2", -0.1, "at least 0 and less than 1"),
        ("eps", 0.0, "more than 0"),
        ("weight_decay", -1, "at least 0"),
    ],
)
def test_a_setting_out_of_range(key: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: must be {allowed}, not {value}"):
        from_tree(AdamWConfig, {key: value})
