"""The largest micro-batch, and an update that runs out of memory: both with made-up memory."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.data.loader import TrainingLoader
from pellucid.errors import TrainingError
from pellucid.model.stats import on_meta
from pellucid.runtime.device import choose_device
from pellucid.train import memory, resume, session
from pellucid.train.building import build_model, build_state, build_updater
from pellucid.train.fitting import climb, with_fitting_micro_batch
from pellucid.train.memory import estimate_activations, estimate_buffers
from pellucid.train.opening import build_objective, open_data, plan_run
from pellucid.train.optimizer import count_training_state
from pellucid.train.out_of_memory import FittingUpdate
from pellucid.train.step import Updater

MIB = 1 << 20


# The largest that fits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "room", "found", "why"),
    [
        (8, None, 8, "16 ran out of memory"),
        (100, None, 16, None),
        (0, None, 1, "even 1 ran out of memory"),
        (100, 5 * MIB, 4, "8 would take about 0.01 GiB of the 0.00 GiB that are free"),
        (2, 5 * MIB, 2, "4 ran out of memory"),
        (100, 8 * MIB, 8, "16 would take about 0.02 GiB of the 0.01 GiB that are free"),
    ],
)
def test_the_largest_size_that_fits_is_found(limit, room, found, why):
    tried = []

    def needed_bytes(size):
        tried.append(size)
        return size * MIB if size <= limit else None

    assert climb([1, 2, 4, 8, 16], needed_bytes, room=room) == (found, why)
    if room is not None:
        assert max(tried) * MIB <= room, "nothing is tried that would not fit"


def opened(config):
    data = open_data(config)
    plan, order = plan_run(config, data, choose_device("cpu"))
    return data, plan, order


def test_auto_keeps_the_tokens_of_a_step_and_is_a_number_in_the_runs_config(workdir, tiny_config):
    config = tiny_config("train.micro_batch=auto")
    data, plan, order = opened(config)
    found = with_fitting_micro_batch(config, plan, order, data)
    assert (found.micro_batch, found.accumulation) == (8, 1)
    assert found.config.train.micro_batch == 8
    assert found.config.train.batch_tokens == config.train.batch_tokens
    assert found.reasons[-1] == "batch 128 tokens = 1 x 8 windows of 16 (auto: the whole batch)"
    assert sum(line.startswith("batch ") for line in found.reasons) == 1


def test_auto_takes_what_the_memory_allows(workdir, tiny_config, monkeypatch):
    config = tiny_config("train.micro_batch=auto")
    data, plan, order = opened(config)
    whole = Updater.gradients

    def gradients(self, batch):
        if len(batch[0].inputs) > 2:
            raise torch.OutOfMemoryError("there is no more")
        return whole(self, batch)

    monkeypatch.setattr(Updater, "gradients", gradients)
    found = with_fitting_micro_batch(config, plan, order, data)
    assert (found.micro_batch, found.accumulation) == (2, 4)
    assert "(auto: 4 ran out of memory)" in found.reasons[-1]


def test_a_cpu_tries_no_more_tokens_than_make_it_faster(workdir, tiny_config):
    config = tiny_config("train.micro_batch=auto", "train.batch_tokens=16384", "train.eval_tokens=64")
    data, plan, order = opened(config)
    found = with_fitting_micro_batch(config, plan, order, data)
    assert found.micro_batch * found.seq_len == 4096
    assert "a CPU gains nothing from more" in found.reasons[-1]


def test_a_micro_batch_that_is_given_is_not_tried(workdir, tiny_config):
    config = tiny_config("train.micro_batch=2")
    data, plan, order = opened(config)
    assert with_fitting_micro_batch(config, plan, order, data) is plan


@pytest.mark.parametrize(("windows", "micro_batch"), [(100, 8), (8, 8), (7.9, 4), (3, 2), (1, 1), (-5, 1)])
def test_a_plan_takes_smaller_pieces_where_half_the_memory_is_too_little(
    workdir, tiny_config, monkeypatch, windows, micro_batch
):
    _, whole, _ = opened(tiny_config())
    assert whole.micro_batch == 8
    model = on_meta(whole.config.model)
    objective = build_objective(whole.config, opened(tiny_config())[0].tokenizer)
    of_window = estimate_activations(whole, objective, model, micro_batch=1)
    fixed = count_training_state(model, whole.config.train).total + estimate_buffers(whole, objective, model)
    needed = fixed + int(windows * of_window)
    monkeypatch.setattr(memory, "total_bytes", lambda kind: 2 * needed)
    _, cut, _ = opened(tiny_config())
    assert (cut.micro_batch, cut.batch_windows) == (micro_batch, 8)
    assert [" (for want of memory)" in line for line in cut.reasons].count(True) == (micro_batch < 8)
    _, named, _ = opened(tiny_config("train.micro_batch=8"))
    assert named.micro_batch == 8


# Running out ----------------------------------------------------------------------------------------


@pytest.fixture
def fitting(workdir, tiny_config, monkeypatch):
    """A FittingUpdate, its batch, and the plans it gave; more than `fits` windows at once run out of memory."""

    def make(*words, fits, error=None):
        config = tiny_config("train.micro_batch=8", *words)
        data, plan, order = opened(config)
        objective = build_objective(plan.config, data.tokenizer)
        model = build_model(plan)
        updater = build_updater(plan, model, build_state(plan, model))
        with TrainingLoader(
            data.shards.train, order, objective=objective, batch_windows=8, micro_batch=8
        ) as loader:
            batch = loader.step(0)
        whole, plans = Updater._gradients, []

        def gradients(self, pieces):
            mean = whole(self, pieces)  # so that gradients are there when memory runs out
            if max(len(piece.inputs) for piece in pieces) > fits:
                raise error or RuntimeError("DefaultCPUAllocator: can't allocate memory\nframe #0")
            return mean

        monkeypatch.setattr(Updater, "_gradients", gradients)
        return FittingUpdate(updater, plan, objective, Path("runs/x"), plans.append), batch, plans

    return make


def weights(update):
    return torch.cat([p.detach().flatten() for p in update.update.state.model.parameters()])


def test_stopping_names_the_numbers_and_the_words_to_change(fitting):
    update, batch, plans = fitting(fits=4)
    before = weights(update)
    with pytest.raises(TrainingError) as raised:
        update(batch, 1e-2)
    message = str(raised.value)
    for words in (
        "step 1: out of memory in an update of 1 x 8 windows of 16 tokens (DefaultCPUAllocator: can't allocate memory)",
        "Estimated: weights 0.0 MiB, gradients 0.0 MiB, optimizer 0.1 MiB, activations of one micro-batch ",
        "the device (cpu) has ",
        "pellucid train --resume runs/x train.micro_batch=4  ",
        "pellucid train --resume runs/x train.activation_checkpointing=full  ",
        "train.out_of_memory=halve",
    ):
        assert words in message, message
    assert plans == []
    assert torch.equal(weights(update), before)
    assert update.update.state.step == 0
    assert all(p.grad is None for p in update.update.state.model.parameters())


def test_halving_makes_the_update_of_smaller_pieces_from_the_start(fitting):
    update, batch, plans = fitting("train.out_of_memory=halve", "model.dropout=0.1", fits=2)
    outcome = update(batch, 1e-2)
    assert [(plan.micro_batch, plan.config.train.micro_batch) for plan in plans] == [(4, 4), (2, 2)]
    assert plans[-1].reasons[-1] == "batch 128 tokens = 4 x 2 windows of 16 (out of memory with 4)"
    small, whole, _ = fitting("train.micro_batch=2", "model.dropout=0.1", fits=8)
    wanted = small(whole, 1e-2)
    assert outcome == wanted
    assert torch.equal(weights(update), weights(small))
    assert update.update.state.step == 1


def test_halving_stops_at_one_window(fitting):
    update, batch, plans = fitting("train.out_of_memory=halve", fits=0)
    with pytest.raises(TrainingError, match="1 windows of 16 tokens") as raised:
        update(batch, 1e-2)
    assert [plan.micro_batch for plan in plans] == [4, 2, 1]
    assert "train.micro_batch=" not in str(raised.value)
    assert "activation_checkpointing=full" in str(raised.value)


def test_where_nothing_is_left_a_smaller_model_is_named(fitting):
    update, batch, _ = fitting("train.activation_checkpointing=full", fits=0)
    update.plan = update.plan.with_micro_batch(1, "for a test")
    with pytest.raises(TrainingError, match="use a smaller model"):
        update(batch, 1e-2)


def test_an_optimizer_that_runs_out_is_not_tried_again(fitting, monkeypatch):
    update, batch, plans = fitting("train.out_of_memory=halve", fits=8)

    def step(*_, **__):
        raise MemoryError

    monkeypatch.setattr(update.update.state.optimizer, "step", step)
    with pytest.raises(TrainingError, match=r"\(MemoryError\)"):
        update(batch, 1e-2)
    assert plans == []


def test_another_fault_passes_through(fitting):
    update, batch, _ = fitting("train.out_of_memory=halve", fits=0, error=RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1"):
        update(batch, 1e-2)


def test_a_plan_in_other_pieces_is_the_same_run(workdir, tiny_config):
    _, plan, _ = opened(tiny_config("train.micro_batch=8"))
    cut = plan.with_micro_batch(2, "for a test")
    assert cut.batch_windows == plan.batch_windows
    assert replace(cut, config=plan.config, micro_batch=8, accumulation=1, reasons=plan.reasons) == plan


@pytest.mark.parametrize(
    ("work", "name", "change", "remark"),
    [
        ("evaluate_split", "evaluation", "train.eval_tokens=16", "  (one window, from now on, …)"),
        ("generate_text", "sample", "train.sample_tokens=0", ""),
    ],
)
def test_where_memory_runs_out_between_updates_is_said(
    train_tiny, monkeypatch, work, name, change, remark
) -> None:
    def runs_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("there is no more")

    told = (
        rf"^out of memory in the {name} after step 4 \(there is no more\)\. The checkpoints saved before are kept: "
        rf"go on with pellucid train --resume runs/debug-001 {re.escape(change + remark).replace('…', '.*')}$"
    )
    with monkeypatch.context() as scarce:
        scarce.setattr(session, work, runs_out)
        with pytest.raises(TrainingError, match=told):
            train_tiny("train.sample_tokens=5")
    assert resume(Path("runs/debug-001"), [change]).end.reason == "finished"
