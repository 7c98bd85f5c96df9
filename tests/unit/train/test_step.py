"""One update: accumulation, clipping, the seed of dropout, and what happens when numbers are not finite."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pellucid.train.step import Outcome

LR = 1.0


def numbers(outcome: Outcome) -> tuple[float, float]:
    assert outcome.status == "updated"
    return outcome.loss, outcome.grad_norm


@pytest.mark.parametrize("count", [2, 4, 8])
def test_micro_batches_add_up_to_the_whole_batch(make_updater, batch, split, weights_of, count):
    whole, parts = make_updater(), make_updater()
    expected = numbers(whole([batch], LR))
    found = numbers(parts(split(batch, count), LR))
    assert found == pytest.approx(expected, rel=1e-6)
    moved = weights_of(whole.model) - weights_of(make_updater().model)
    assert moved.abs().max() > 0.01
    torch.testing.assert_close(weights_of(parts.model), weights_of(whole.model), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3)])
def test_the_loss_told_is_the_weighted_mean_of_the_plain_cross_entropy(
    make_updater, batch, smoothing, z_loss
):
    updater = make_updater(smoothing=smoothing, z_loss=z_loss)
    with torch.no_grad():
        logits = updater.model(batch.inputs).flatten(0, 1)
    each = F.cross_entropy(logits, batch.targets.flatten(), reduction="none")
    weights = batch.weights.flatten()
    loss, _ = numbers(updater([batch], LR))
    assert loss == pytest.approx(((each * weights).sum() / weights.sum()).item(), rel=1e-6)


@pytest.mark.parametrize("change", [{"smoothing": 0.3}, {"z_loss": 0.3}])
def test_smoothing_and_z_loss_change_what_is_learned(make_updater, batch, weights_of, change):
    plain, changed = make_updater(), make_updater(**change)
    plain([batch], LR)
    changed([batch], LR)
    assert (weights_of(plain.model) - weights_of(changed.model)).norm() > 0.01


def test_a_long_gradient_is_scaled_down_to_the_clip_and_its_own_norm_reported(
    make_updater, batch, weights_of
):
    free, clipped = make_updater(), make_updater(grad_clip=0.01)
    start = weights_of(free.model)
    _, norm = numbers(free([batch], LR))
    assert norm > 0.01
    assert (weights_of(free.model) - start).norm().item() == pytest.approx(norm, rel=1e-5)
    assert clipped([batch], LR).grad_norm == norm
    assert (weights_of(clipped.model) - start).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_learning_rate_is_the_one_given(make_updater, batch, weights_of):
    updater = make_updater()
    start = weights_of(updater.model)
    _, norm = numbers(updater([batch], 0.25))
    assert (weights_of(updater.model) - start).norm().item() == pytest.approx(0.25 * norm, rel=1e-5)


def test_steps_and_tokens_are_counted_and_gradients_dropped(make_updater, batch, split):
    updater = make_updater()
    updater(split(batch, 4), LR)
    updater([batch], LR)
    assert (updater.state.step, updater.state.tokens) == (2, 2 * batch.inputs.numel())
    assert all(p.grad is None for p in updater.model.parameters())


# Dropout and recomputation ---------------------------------------------------------------------------


def test_dropout_depends_on_the_seed_the_step_and_the_micro_batch_alone(make_updater, batch):
    def first_loss(*, seed=0, step=0, draws_before=0, micro=0):
        updater = make_updater(dropout=0.5, seed=seed)
        updater.state.step = step
        torch.rand(draws_before)
        silent = type(batch)(batch.inputs, batch.targets, torch.zeros_like(batch.weights), batch.origin)
        return updater([silent] * micro + [batch], LR).loss

    assert first_loss() == first_loss(draws_before=17)
    assert len({first_loss(), first_loss(seed=1), first_loss(step=1), first_loss(micro=1)}) == 4


@pytest.mark.parametrize("recompute", ["full", "selective"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_update_to_the_bit(
    make_updater, batch, split, weights_of, dropout, recompute
):
    kept, recomputed = (make_updater(dropout=dropout, recompute=r) for r in ("none", recompute))
    assert kept(split(batch, 2), LR) == recomputed(split(batch, 2), LR)
    assert torch.equal(weights_of(kept.model), weights_of(recomputed.model))


# Numbers that are not finite -------------------------------------------------------------------------


def spoil_the_loss(model):
    with torch.no_grad():
        model.final_norm.gain.fill_(torch.inf)


def spoil_a_gradient(model):
    model.blocks[0].attention.query.weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize("spoil", [spoil_the_loss, spoil_a_gradient])
def test_what_is_not_finite_leaves_weights_and_optimizer_as_they_were(make_updater, batch, weights_of, spoil):
    updater = make_updater(torch.optim.AdamW)
    spoil(updater.model)
    before = weights_of(updater.model)
    outcome = updater([batch], LR)
    assert outcome.status == "not finite"
    assert not (math.isfinite(outcome.loss) and math.isfinite(outcome.grad_norm))
    assert torch.equal(weights_of(updater.model), before)
    assert len(updater.state.optimizer.state) == 0
    assert all(p.grad is None for p in updater.model.parameters())
    assert (updater.state.step, updater.state.tokens) == (1, 64)  # the batch is passed over: it counts


def test_a_gradient_scaler_changes_no_update_that_fits(make_updater, batch, split, weights_of):
    plain = make_updater()
    scaled = make_updater(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    expected = numbers(plain(split(batch, 2), LR))
    assert numbers(scaled(split(batch, 2), LR)) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights_of(scaled.model), weights_of(plain.model), rtol=0, atol=1e-6)


def test_with_a_gradient_scaler_an_overflow_is_skipped_and_the_scale_halved(make_updater, batch, weights_of):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    updater = make_updater(scaler=scaler)
    spoil_a_gradient(updater.model)
    before = weights_of(updater.model)
    outcome = updater([batch], LR)
    assert outcome.status == "overflow"
    assert math.isfinite(outcome.loss)
    assert not math.isfinite(outcome.grad_norm)
    assert torch.equal(weights_of(updater.model), before)
    assert scaler.get_scale() == 512
    assert updater.state.step == 1


class StoppedError(Exception):
    """What a signal becomes."""


@pytest.mark.parametrize("pieces", [0, 1, 7])
def test_an_update_that_is_left_half_way_leaves_everything_as_it_was(
    make_updater, batch, split, weights_of, pieces
):
    calls = []

    def stop():
        calls.append(len(calls))
        if len(calls) > pieces:
            raise StoppedError

    updater = replace(make_updater(torch.optim.AdamW), while_working=stop)
    before = weights_of(updater.model)
    with pytest.raises(StoppedError):
        updater(split(batch, 8), LR)
    assert len(calls) == pieces + 1  # the other micro-batches are not waited for
    assert torch.equal(weights_of(updater.model), before)
    assert all(p.grad is None for p in updater.model.parameters())
    assert len(updater.state.optimizer.state) == 0
    assert (updater.state.step, updater.state.tokens) == (0, 0)
