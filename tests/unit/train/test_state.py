"""What a checkpoint keeps of a run: the optimizer's tensors by name, and a few plain values."""

import json
from functools import partial

import pytest
import torch

from pellucid.errors import ResumeError
from pellucid.train.state import TrainState

fused_adamw = partial(torch.optim.AdamW, fused=True)


def test_a_restored_state_goes_on_to_the_bit(make_updater, batch, split, weights_of):
    original = make_updater(fused_adamw, dropout=0.2)
    for _ in range(3):
        original(split(batch, 2), 0.01)
    original.state.elapsed_seconds, original.state.best_loss, original.state.best_step = 12.5, 3.25, 2

    restored = make_updater(fused_adamw, dropout=0.2)
    restored.model.load_state_dict(original.model.state_dict())
    tensors = {name: tensor.clone() for name, tensor in original.state.tensors().items()}
    restored.state.restore(tensors, json.loads(json.dumps(original.state.values())))

    assert restored.state.values() == original.state.values()
    assert restored(split(batch, 2), 0.01) == original(split(batch, 2), 0.01)
    assert torch.equal(weights_of(restored.model), weights_of(original.model))
    for name, tensor in original.state.tensors().items():
        assert torch.equal(restored.state.tensors()[name], tensor), name


def test_tensors_are_named_by_what_and_whose_they_are(make_updater, batch):
    updater = make_updater(fused_adamw)
    assert updater.state.tensors() == {}
    updater([batch], 0.01)
    names = {
        f"{what}.{name}"
        for what in ("step", "exp_avg", "exp_avg_sq")
        for name, _ in updater.model.named_parameters()
    }
    assert updater.state.tensors().keys() == names


def test_a_fresh_state_is_restored_from_a_checkpoint_before_the_first_update(make_updater):
    fresh = make_updater(fused_adamw)
    fresh.state.restore({}, fresh.state.values())
    assert fresh.state.values()["step"] == 0


def test_the_scale_of_the_gradient_scaler_is_kept(make_updater):
    def with_scale(scale: float) -> TrainState:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        updater = make_updater(scaler=scaler)
        scaler.scale(torch.ones(()))  # it takes its scale at the first use
        return updater.state

    kept, restored = with_scale(2.0**7), with_scale(2.0**16)
    restored.restore({}, json.loads(json.dumps(kept.values())))
    assert restored.scaler.get_scale() == 2.0**7


def test_the_state_of_another_optimizer_is_refused(make_updater, batch):
    updater = make_updater(fused_adamw)
    updater([batch], 0.01)
    tensors = updater.state.tensors()
    partly = {name: tensor for name, tensor in tensors.items() if "blocks.1.attention.query" not in name}
    fresh = make_updater(fused_adamw)
    with pytest.raises(ResumeError, match=r"no optimizer state for blocks\.1\.attention\.query\.weight"):
        fresh.state.restore(partly, updater.state.values())
