"""The moving average of the weights: its formula, the exact swap, and what a run does with it."""

import io
import json
from functools import partial

import pytest
import torch
from rich.console import Console
from torch import nn

from pellucid import checkpoint
from pellucid.errors import CheckpointError, ConfigError, ResumeError
from pellucid.experiments.verify_resume import compare_runs
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.train import resume
from pellucid.train.averaging import WeightAverage
from pellucid.train.run_files import read_facts
from pellucid.train.score import score_loaded
from pellucid.train.step import Outcome, Updater

AVERAGED = "train.weight_average=0.9"
fp32 = choose_precision("fp32", choose_device("cpu"))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def change(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator))


# The average -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.999])
def test_it_follows_its_formula(model, decay):
    average = WeightAverage(model, decay)
    expected = {name: tensor.double() for name, tensor in weights(model).items()}
    for t in range(12):
        change(model, t)
        average.update()
        d = min(decay, (1 + t) / (10 + t))
        expected = {n: d * expected[n] + (1 - d) * w.double() for n, w in weights(model).items()}
    for name, tensor in average.tensors().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
        assert tensor.dtype == torch.float32
    assert average.updates == 12


def test_inside_the_swap_the_model_has_the_average_and_after_it_its_own_weights_to_the_bit(model):
    average = WeightAverage(model, 0.9)
    change(model, 0)
    average.update()
    own, averaged = weights(model), {n: t.clone() for n, t in average.tensors().items()}
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    with average.swapped():
        assert all(torch.equal(p, averaged[name]) for name, p in model.named_parameters())
        assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ZeroDivisionError), average.swapped():
        _ = 1 / 0
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == places
    assert all(torch.equal(t, averaged[name]) for name, t in average.tensors().items())


def test_a_restored_average_goes_on_to_the_bit(model):
    first, twin = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for t in range(3):
        change(model, t)
        first.update()
    twin.restore({name: t.clone() for name, t in first.tensors().items()}, first.updates)
    change(model, 9)
    first.update()
    twin.update()
    assert all(torch.equal(t, twin.tensors()[name]) for name, t in first.tensors().items())


def test_the_average_of_another_model_is_refused(model):
    average = WeightAverage(model, 0.9)
    tensors = average.tensors()
    with pytest.raises(ResumeError, match=r"of another model: 1\.bias does not fit"):
        average.restore({**tensors, "1.bias": torch.zeros(7)}, 1)
    del tensors["0.weight"]
    with pytest.raises(ResumeError, match=r"of another model: 0\.weight does not fit"):
        average.restore(tensors, 1)


# In a run --------------------------------------------------------------------------------------------


def evaluations(run) -> list[dict]:
    return [fact for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "evaluation"]


@pytest.fixture
def quiet_resume():
    return partial(resume, console=Console(file=io.StringIO()))


def test_averaging_changes_no_update(train_tiny):
    plain, averaged = train_tiny().directory, train_tiny(AVERAGED).directory
    steps = [
        [fact["loss"] for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"]
        for run in (plain, averaged)
    ]
    assert steps[0] == steps[1]
    name = "checkpoints/step-00000008/model.safetensors"
    assert (plain / name).read_bytes() == (averaged / name).read_bytes()
    assert not (plain / "checkpoints/step-00000008/averaged.safetensors").exists()
    assert evaluations(plain)[-1]["val_loss"] != evaluations(averaged)[-1]["val_loss"]


def test_what_is_evaluated_is_the_saved_average(train_tiny):
    run = train_tiny(AVERAGED).directory
    last = evaluations(run)[-1]
    assert last["is_averaged"] is True
    path, why = checkpoint.find_checkpoint(run)
    assert why == f"{path} (the run's best by validation loss; averaged weights)"
    _, score = score_loaded(checkpoint.load(path), precision=fp32, max_tokens=64)
    assert score.loss == pytest.approx(last["val_loss"], rel=1e-6)


def test_the_average_is_loaded_where_there_is_one_and_the_last_weights_where_they_are_asked_for(train_tiny):
    path = train_tiny(AVERAGED).directory / "checkpoints/step-00000008"
    stored = checkpoint.load_train_state(path)
    for asked, is_averaged in ((None, True), (True, True), (False, False)):
        loaded = checkpoint.load(path, averaged=asked)
        assert loaded.is_averaged is is_averaged
        wanted = stored.averaged if is_averaged else stored.model
        assert all(torch.equal(p, wanted[name]) for name, p in loaded.model.named_parameters())
    assert any(not torch.equal(stored.averaged[name], w) for name, w in stored.model.items())


def test_an_average_that_was_not_kept_cannot_be_asked_for(train_tiny):
    path = train_tiny().directory / "checkpoints/step-00000008"
    assert checkpoint.load(path).is_averaged is False
    with pytest.raises(CheckpointError, match=r"averaged\.safetensors: no such file"):
        checkpoint.load(path, averaged=True)


def test_samples_are_of_the_averaged_weights(train_tiny, monkeypatch):
    written = []
    monkeypatch.setattr(
        "pellucid.train.session.generate_text",
        lambda model, *_, **__: written.append(weights(model)) or type("Text", (), {"text": ""})(),
    )
    run = train_tiny(AVERAGED, "train.sample_tokens=3").directory
    stored = checkpoint.load_train_state(run / "checkpoints/step-00000008")
    assert all(torch.equal(tensor, stored.averaged[name]) for name, tensor in written[-1].items())


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_run_cut_off_anywhere_goes_on_to_the_bit(train_tiny, cut_off_after, workdir, quiet_resume, step):
    whole = train_tiny(AVERAGED).directory
    cut_off_after(step, lambda hooks: train_tiny(AVERAGED, "run.dir=killed", hooks=hooks))
    quiet_resume(workdir / "killed")
    assert compare_runs(whole, workdir / "killed") == []


def test_a_step_that_was_no_update_is_not_averaged(train_tiny, monkeypatch):
    apply = Updater.apply

    def skip_third(self, *words):
        outcome = apply(self, *words)
        return Outcome(outcome.loss, outcome.grad_norm, "overflow") if self.state.step == 3 else outcome

    monkeypatch.setattr(Updater, "apply", skip_third)
    run = train_tiny(AVERAGED).directory
    values = checkpoint.load_train_values(run / "checkpoints/step-00000008")
    assert values["averaged_updates"] == 7


def test_averaging_may_begin_and_end_at_a_resume(train_tiny, quiet_resume):
    run = train_tiny().directory
    quiet_resume(run, [AVERAGED, "train.steps=12"])
    values = checkpoint.load_train_values(run / "checkpoints/step-00000012")
    assert values["averaged_updates"] == 4
    assert evaluations(run)[-1]["is_averaged"] is True
    quiet_resume(run, ["train.weight_average=", "train.steps=16"])
    assert not (run / "checkpoints/step-00000016/averaged.safetensors").exists()
    assert evaluations(run)[-1]["is_averaged"] is False


def test_a_run_from_another_ones_weights_starts_from_its_average(train_tiny):
    first = train_tiny(AVERAGED).directory
    stored = checkpoint.load_train_state(checkpoint.find_checkpoint(first)[0])
    words = ("train.lr=1e-30", "train.steps=1", "train.optimizer.weight_decay=0")
    second = train_tiny(*words, init=first).directory
    found = checkpoint.load_train_state(second / "checkpoints/step-00000001").model
    assert all(torch.equal(tensor, stored.averaged[name]) for name, tensor in found.items())


@pytest.mark.parametrize("decay", ["0", "1", "-0.5"])
def test_a_decay_that_is_none_is_refused(tiny_config, decay):
    with pytest.raises(ConfigError, match=r"train\.weight_average"):
        tiny_config(f"train.weight_average={decay}")


def test_the_copy_is_counted(tiny_config):
    from pellucid.train.cost import estimate_cost

    plain, averaged = (
        estimate_cost(tiny_config(*words), choose_device("cpu")) for words in ((), (AVERAGED,))
    )
    assert plain.average_bytes == 0
    assert averaged.average_bytes == averaged.weights_bytes
    assert averaged.total_bytes - plain.total_bytes == averaged.weights_bytes
    json.dumps(averaged.to_dict())
