"""What `pellucid bench train` measures is the run that `pellucid train` would make, on ids that are never read."""

import math
from dataclasses import replace

import pytest

from pellucid.cli.options import run_config
from pellucid.errors import ConfigError
from pellucid.experiments.bench import peak
from pellucid.experiments.bench.synthetic import plan_synthetic, synthetic_split
from pellucid.experiments.bench.training import ROWS, WARMUP_STEPS, find_row, measure
from pellucid.model.block import Block
from pellucid.runtime.device import Device, choose_device
from pellucid.train.opening import open_data, plan_run

SMALL = ("model.d_model=16", "model.num_heads=2", "model.max_seq_len=32", "train.precision=fp32")
TRAINING, FORWARD, CHECKPOINTING = ROWS


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setattr(peak, "_CPU_SHAPES", ((64, 64, 64), (128, 64, 64)))


@pytest.fixture
def cpu():
    return choose_device("cpu")


def test_a_batch_of_random_ids_is_learned_from_ln_v_downwards(cpu, tiny_config):
    speed = measure(tiny_config("train.schedule.warmup_steps=0"), cpu, TRAINING, steps=8)
    assert speed.first_loss == pytest.approx(math.log(257), abs=0.3)
    assert speed.last_loss < speed.first_loss - 0.01


def test_forward_only_scores_and_changes_nothing(cpu, tiny_config):
    speed = measure(tiny_config(), cpu, FORWARD, steps=2)
    assert speed.first_loss == speed.last_loss == pytest.approx(math.log(257), abs=0.3)


def test_both_begin_with_the_loss_of_the_same_batch(cpu, tiny_config):
    config = tiny_config("train.micro_batch=2")
    first, second = (measure(config, cpu, row, steps=1).first_loss for row in (TRAINING, FORWARD))
    assert first == pytest.approx(second, abs=1e-5)


def test_utilisation_is_needed_by_reachable_flops(cpu, tiny_config):
    speed, forward = (measure(tiny_config(), cpu, row, steps=1) for row in (TRAINING, FORWARD))
    assert speed.tokens_per_s == pytest.approx(1e3 * speed.batch_tokens / speed.ms_per_step)
    assert speed.mfu == pytest.approx(speed.tokens_per_s * speed.flops_per_token / speed.gemm_flops_per_s)
    assert speed.flops_per_token == 3 * forward.flops_per_token


def test_the_plan_is_that_of_the_run(cpu, tiny_config):
    config = tiny_config("train.micro_batch=4")
    trained, _ = plan_run(config, open_data(config), cpu)
    measured, _ = plan_synthetic(config, cpu)
    assert measured.reasons == trained.reasons
    assert replace(measured, config=trained.config) == trained


def test_a_run_of_epochs_counts_as_long(tiny_config):
    config = tiny_config("train.steps=", "train.epochs=1")
    able = Device("cpu", "made up", has_bf16=False, can_compile=True, compile_reason="made up")
    assert plan_synthetic(config, able)[0].compiled
    assert not plan_synthetic(tiny_config(), able)[0].compiled


def test_every_step_sees_the_same_ids(cpu, tiny_config):
    plan, objective = plan_synthetic(tiny_config(), cpu)
    split = synthetic_split(plan)
    order = objective.order(split, seed=0)
    assert order.windows_per_epoch == plan.batch_windows
    assert int(split.shards[0].max()) < 257


@pytest.mark.parametrize(
    "words",
    [
        ("encdec-quick", "model.num_encoder_layers=1", "model.num_decoder_layers=1", *SMALL),
        ("pairs-quick", "model.num_encoder_layers=1", "model.num_decoder_layers=1", *SMALL),
        ("shakespeare-char", "model.num_layers=1", *SMALL),
        ("debug", "model.num_layers=1", "data.objective.kind=prefix", *SMALL),
        ("debug", "model.num_layers=1", "data.objective.packing=best_fit", *SMALL),
    ],
    ids=["span corruption", "pairs", "char", "prefix", "packed"],
)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_objective_and_tokenizer_can_be_measured(cpu, words, row):
    config = run_config([*words, "train.batch_tokens=64"])
    speed = measure(config, cpu, row, steps=1)
    assert math.isfinite(speed.last_loss)
    assert speed.tokens_per_s > 0


def test_activation_checkpointing_runs_each_block_twice(cpu, tiny_config, monkeypatch):
    calls, forward = [], Block.forward
    monkeypatch.setattr(Block, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    counts = []
    for row in (TRAINING, CHECKPOINTING):
        calls.clear()
        measure(tiny_config(), cpu, row, steps=1)
        counts.append(len(calls))
    assert counts == [WARMUP_STEPS + 1, 2 * (WARMUP_STEPS + 1)]


def test_a_dropout_that_moves_is_timed_as_a_run_has_it(cpu, tiny_config):
    still, moving = (
        measure(tiny_config(*words), cpu, TRAINING, steps=1).first_loss
        for words in ((), ("train.final_dropout=0.9",))
    )
    assert still != moving


def test_an_unknown_row_is_refused_with_those_that_there_are():
    with pytest.raises(
        ConfigError, match=r"--only 'speed'.*training, forward only, activation checkpointing"
    ):
        find_row("speed")
