import copy

import pytest
import torch
from torch import nn

from pellucid.model import DecoderConfig, DecoderLM
from pellucid.optim import AdamWConfig, MuonConfig, ParameterGroup, group_by_role, report
from pellucid.optim import orthogonal as orthogonal_module
from pellucid.optim.orthogonal import BatchedMuon, orthogonal

SIZES = {"vocab_size": 13, "d_model": 8, "num_layers": 1, "num_heads": 2, "max_seq_len": 6}
CONFIG = MuonConfig(lr_scale=0.5, weight_decay=0.2, beta1=0.8)
A_TENTH_OF_AN_UPDATE = 0.1 * 0.2 * 0.01 * 0.5
"""Of its RMS, 0.2 · lr · lr_scale: products of several matrices at once round in bf16 otherwise than single ones."""


def build_model(**words) -> DecoderLM:
    return DecoderConfig(**SIZES, tie_embeddings=False, **words).build(seed=1)


def groups_of(model: DecoderLM) -> list[ParameterGroup]:
    return group_by_role(model, model.parameter_roles())


def step(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for optimizer in optimizers:
        optimizer.step()


def test_matrices_are_muons_and_everything_else_adamws() -> None:
    rows = report(CONFIG.build(groups_of(build_model()), lr=0.01))
    assert {row.role: row.method for row in rows} == {
        "embedding": "adamw",
        "gain": "adamw",
        "head": "adamw",
        "matrix": "muon",
        "residual_matrix": "muon",
    }
    assert {row.method: row.lr_scale for row in rows} == {"muon": 0.5, "adamw": 1.0}


def test_each_expert_is_a_matrix_of_its_own() -> None:
    torch.manual_seed(0)
    stack, gain = nn.Parameter(torch.randn(3, 4, 6)), nn.Parameter(torch.ones(2))
    router = nn.Parameter(torch.randn(3, 4))
    apart = [nn.Parameter(matrix.clone()) for matrix in (router.detach(), *stack.detach())]
    groups = [
        ParameterGroup("matrix", {"router": router, "up": stack}),
        ParameterGroup("gain", {"gain": gain}),
    ]
    optimizer = CONFIG.build(groups, lr=0.01)
    theirs = torch.optim.Muon(apart, lr=0.005, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["lr_scale"]
        for parameter in (stack, gain, router):
            parameter.grad = torch.randn(parameter.shape)
        for one, gradient in zip(apart, (router.grad, *stack.grad), strict=True):
            one.grad = gradient.clone()
        optimizer.step()
        theirs.step()
    for one, another in zip(apart, (router, *stack), strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=A_TENTH_OF_AN_UPDATE)
    assert optimizer.state[stack]["momentum_buffer"].shape == stack.shape


def test_updates_are_those_of_torchs_two_optimizers() -> None:
    ours, theirs = build_model(), build_model()
    optimizer = CONFIG.build(groups_of(ours), lr=0.01)
    matrices = [group for group in groups_of(theirs) if "matrix" in group.role]
    others = [group for group in groups_of(theirs) if "matrix" not in group.role]
    muon = torch.optim.Muon(
        [p for group in matrices for p in group.parameters.values()],
        lr=0.01 * 0.5,
        weight_decay=0.2,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = AdamWConfig(weight_decay=0.2, beta1=0.8).build(others, lr=0.01)
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["lr_scale"]  # as an update does
        step(ours, optimizer)
        step(theirs, muon, adamw)
    inside = {name for group in matrices for name in group.parameters}
    for (name, one), another in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        tolerance = A_TENTH_OF_AN_UPDATE if name in inside else 0.0
        torch.testing.assert_close(one, another, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("shape", [(5, 16, 16), (3, 16, 40), (3, 40, 16)])
def test_singular_values_end_near_one_and_their_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices, 5).float()
    in_their_place = u.mT @ found @ v.mT
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.5
    torch.testing.assert_close(
        in_their_place, torch.diag_embed(in_their_place.diagonal(dim1=1, dim2=2)), atol=0.15, rtol=0
    )


def test_what_is_multiplied_together_changes_nothing_but_rounding(monkeypatch) -> None:
    weights = []
    for at_once in (1, 3 * 64, 1 << 22):  # of 64 numbers: alone, three and a rest, all
        monkeypatch.setattr(orthogonal_module, "_AT_ONCE", at_once)
        model = build_model()
        step(model, CONFIG.build(groups_of(model), lr=0.01))
        weights.append([parameter.detach() for parameter in model.parameters()])
    for several in zip(*weights, strict=True):
        for one in several[1:]:
            torch.testing.assert_close(one, several[0], rtol=0, atol=A_TENTH_OF_AN_UPDATE * 2)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_it_is_torchs_with_and_without_nesterov_and_bf16(monkeypatch, nesterov: bool, has_bf16: bool) -> None:
    """Also where a matrix has no gradient, and where a gradient is a transposed view."""
    monkeypatch.setattr(orthogonal_module, "cpu_has_bf16", lambda: has_bf16)
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(6, 9, generator=generator)) for _ in range(3)]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    settings = {"lr": 0.01, "momentum": 0.9, "nesterov": nesterov, "ns_steps": 5}
    mine = BatchedMuon([{"params": ours, "weight_decay": 0.3}], **settings)
    other = torch.optim.Muon(theirs, **settings, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, another in list(zip(ours, theirs, strict=True))[:2]:
            one.grad = torch.randn(9, 6, generator=generator).T
            another.grad = one.grad.clone()
        mine.step()
        other.step()
    assert torch.equal(ours[2], theirs[2])
    for one, another in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=3 * 0.1 * 0.2 * 0.01 * 3)


@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (256, 64)])
def test_an_update_is_as_long_as_adamws_in_practice(shape: tuple[int, int]) -> None:
    """RMS 0.2 · lr, which is what lets a rate found for AdamW serve (arXiv:2502.16982, sec. 2.2)."""
    weight = nn.Parameter(torch.zeros(shape))
    gain = nn.Parameter(torch.zeros(3))
    groups = [ParameterGroup("matrix", {"weight": weight}), ParameterGroup("gain", {"gain": gain})]
    optimizer = MuonConfig(weight_decay=0.0).build(groups, lr=0.1)
    torch.manual_seed(0)
    weight.grad, gain.grad = torch.randn(shape), torch.zeros(3)
    optimizer.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.25)


def test_state_that_is_put_into_the_whole_is_what_the_parts_go_on_with() -> None:
    model = build_model()
    optimizer = CONFIG.build(groups_of(model), lr=0.01)
    step(model, optimizer)
    assert {type(key) for key in optimizer.state} == {nn.Parameter}
    assert len(optimizer.state) == len(list(model.parameters()))
    restored = copy.deepcopy(model)
    other = CONFIG.build(groups_of(restored), lr=0.01)
    for before, after in zip(model.parameters(), restored.parameters(), strict=True):
        for what, value in optimizer.state[before].items():
            other.state[after][what] = value.clone()
    step(model, optimizer)
    step(restored, other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), restored.parameters(), strict=True))
