"""Bundles: what they hold, that they come back, and how many there are."""

import io
import json
import math
import shutil
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from pellucid.data.batch import Origin
from pellucid.errors import CheckpointError
from pellucid.train import bundle as bundle_module
from pellucid.train import recorder as recorder_module
from pellucid.train.bundle import Bundle
from pellucid.train.guard import GuardConfig
from pellucid.train.recorder import Recorder
from pellucid.train.step import Outcome

NAN = Outcome(math.nan, math.nan, "not finite")


@pytest.fixture
def world(make_updater, batch, tiny_config, workdir):
    """A recorder, its updater, what it said, and a call of it after so many updates."""

    def make(*, micro_batch=4, scaler=None, max_bundles=2):
        updater, said = make_updater(scaler=scaler), io.StringIO()
        config = tiny_config()
        train = config.train.model_copy(update={"guard": GuardConfig(max_bundles=max_bundles)})
        plan = SimpleNamespace(
            micro_batch=micro_batch, compiled=False, config=config.model_copy(update={"train": train})
        )
        recorder = Recorder(workdir, updater, lambda: plan, {"threads": 1}, Console(file=said, width=1000))

        def record(step, outcome=NAN):
            updater.state.step = step
            return recorder([batch], outcome, 0.1, 0.25)

        return SimpleNamespace(record=record, updater=updater, said=said, config=plan.config)

    return make


@pytest.fixture
def batch(batch):
    """With rows that say where they are from."""
    rows = torch.arange(len(batch.inputs)).numpy()
    return type(batch)(batch.inputs, batch.targets, batch.weights, Origin(rows, rows + 1, rows + 2, rows + 3))


def test_a_bundle_holds_the_step_as_it_was_before(world, batch, workdir):
    made = world()
    path = made.record(8)
    assert path == workdir / "bundles/step-00000008"
    assert sorted(p.name for p in path.iterdir()) == [
        "batch.safetensors", "config.toml", "environment.json", "model.safetensors", "step.json"
    ]  # fmt: skip
    found = Bundle.read(path)
    assert (found.step, found.lr, found.progress, found.config) == (7, 0.1, 0.25, made.config)
    assert math.isnan(found.loss)
    assert math.isnan(found.grad_norm)
    assert found.environment == {"threads": 1}
    weights = dict(made.updater.model.named_parameters())
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[name], weights[name]) for name in weights)


def test_the_batch_comes_back_in_the_pieces_that_it_was_learned_in(world, batch):
    found = Bundle.read(world(micro_batch=3).record(8)).batch
    assert [len(micro.inputs) for micro in found] == [3, 3, 2]
    for name in ("inputs", "targets", "weights"):
        assert torch.equal(torch.cat([getattr(micro, name) for micro in found]), getattr(batch, name))
    for field in fields(Origin):
        there = [row for micro in found for row in getattr(micro.origin, field.name)]
        assert there == list(getattr(batch.origin, field.name))
    assert all(micro.positions is None for micro in found)


def test_the_seed_and_the_module_that_began_it_can_be_read_without_us(world):
    made = world()
    with torch.no_grad():
        made.updater.model.final_norm.gain.fill_(torch.inf)
    values = json.loads((made.record(8) / "step.json").read_text())
    assert (values["seed"], values["step"], values["loss"]) == (0, 7, "nan")
    assert (values["origin"]["kind"], values["origin"]["name"]) == ("output", "final_norm")


def test_numbers_come_back_to_the_bit(world):
    outcome = Outcome(1 / 3, -math.inf, "not finite")
    found = Bundle.read(world().record(8, outcome))
    assert (found.loss, found.grad_norm) == (1 / 3, -math.inf)


def test_the_scale_is_that_of_before_the_overflow(world, batch):
    made = world(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    made.updater.model.final_norm.gain.register_hook(lambda gradient: gradient * torch.inf)
    outcome = made.updater([batch], 1.0)
    assert outcome.status == "overflow"
    assert made.updater.state.scaler.get_scale() == 512
    assert Bundle.read(made.record(1, outcome)).scaler["scale"] == 1024


def test_only_the_newest_bundles_are_kept(world, workdir):
    made = world(max_bundles=2)
    for step in (8, 30, 100, 20):  # the last after a rollback
        assert made.record(step).is_dir()
    assert sorted(p.name for p in (workdir / "bundles").iterdir()) == ["step-00000020", "step-00000100"]


def test_a_step_that_goes_wrong_again_replaces_its_bundle(world):
    made = world()
    made.record(8, Outcome(1.0, math.nan, "not finite"))
    assert Bundle.read(made.record(8, Outcome(2.0, math.nan, "not finite"))).loss == 2.0


def test_none_is_written_where_none_is_wanted(world, workdir):
    assert world(max_bundles=0).record(8) is None
    assert not (workdir / "bundles").exists()


def test_a_disk_without_room_does_not_end_the_run(world, workdir, monkeypatch):
    usage = shutil.disk_usage(workdir)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    made = world()
    assert made.record(8) is None
    assert "the step was not recorded: " in made.said.getvalue()
    assert list((workdir / "bundles").glob("*")) == []


def raiser(error):
    def raise_it(*step, **options):
        raise error

    return raise_it


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_where_memory_is_too_short_to_look_for_the_origin_the_step_is_recorded_without(
    world, monkeypatch, error
):
    monkeypatch.setattr(recorder_module, "find_origin", raiser(error))
    made = world()
    found = made.record(8)
    assert json.loads((found / "step.json").read_text())["origin"] is None
    assert Bundle.read(found).step == 7
    assert "no memory to look where the fault began" in made.said.getvalue()


def test_another_fault_of_the_search_is_not_hidden(world, monkeypatch):
    monkeypatch.setattr(recorder_module, "find_origin", raiser(RuntimeError("mat1 and mat2")))
    with pytest.raises(RuntimeError, match="mat1"):
        world().record(8)


@pytest.mark.parametrize("name", ["step.json", "batch.safetensors", "model.safetensors"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_damaged_bundle_is_refused(world, name, how):
    path = world().record(8)
    content = (path / name).read_bytes()
    (path / name).unlink()
    if how == "truncated":
        (path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name if how == "missing" else "truncated"):
        Bundle.read(path)


def test_the_layout_is_named_in_the_file_that_writes_it():
    names = (bundle_module.CONFIG, bundle_module.MODEL, bundle_module.BATCH, bundle_module.STEP)
    assert all(name in bundle_module.__doc__ for name in names)
