"""A device that computes wrongly is found. The CPU plays the device; a model with a fault plays its kernels."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pellucid.errors import TrainingError
from pellucid.runtime.device import Device, choose_device
from pellucid.train.numerics import compare_with_cpu, relative_error, require_sound, tiny_model
from pellucid.train.opening import open_data, plan_run
from pellucid.train.session import Session

CPU = torch.device("cpu")


class Faulty(torch.autograd.Function):
    """The identity, one of whose gradients is wrong by one per cent."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        wrong = gradient.clone()
        wrong[..., 0] *= 1.01
        return wrong


def with_wrong_gradient():
    model = tiny_model()
    model.final_norm.register_forward_hook(lambda *given: Faulty.apply(given[-1]))
    return model


def with_wrong_logits():
    model = tiny_model()
    with torch.no_grad():
        model.blocks[1].attention.output.weight[3, 3] += 0.05
    return model


def with_a_nan():
    model = tiny_model()
    model.blocks[0].feed_forward = nn.Sequential(
        model.blocks[0].feed_forward, nn.Threshold(9e9, float("nan"))
    )
    return model


def test_the_cpu_agrees_with_itself():
    logits, gradients = compare_with_cpu(CPU)
    assert logits.what == "logits, cpu fp32 against CPU fp64"
    assert 0 < logits.error < 1e-5
    assert 0 < gradients.error < 1e-5
    require_sound(CPU)


def test_a_wrong_gradient_is_found_where_logits_are_right():
    logits, gradients = compare_with_cpu(CPU, with_wrong_gradient)
    assert logits.passed
    assert not gradients.passed
    with pytest.raises(TrainingError, match=r"computes wrongly \(gradients, .*--device cpu"):
        require_sound(CPU, with_wrong_gradient)


@pytest.mark.parametrize("build", [with_wrong_logits, with_a_nan])
def test_wrong_logits_are_found(build):
    logits, _ = compare_with_cpu(CPU, build)
    assert not logits.passed


def test_an_error_is_relative_to_the_largest_number():
    assert relative_error(torch.tensor([100.0, 1.0]), torch.tensor([100.0, 2.0])) == pytest.approx(0.01)
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")


def test_a_run_on_mps_begins_with_the_comparison(workdir, tiny_config, monkeypatch):
    def refuse(device):
        raise TrainingError(f"asked of {device.type}")

    monkeypatch.setattr("pellucid.train.session.require_sound", refuse)
    config = tiny_config()
    plan, _ = plan_run(config, open_data(config), choose_device("cpu"))
    apple = Device("mps", "made up", has_bf16=False, can_compile=False, compile_reason="made up")
    with pytest.raises(TrainingError, match="asked of mps"):
        Session.begin(None, replace(plan, device=apple), None, None, None, clock_start=0.0)
