"""What doctor says of this machine, and of machines that are not here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.experiments import doctor
from pellucid.experiments.doctor import NEVER_RUN, diagnose
from pellucid.experiments.doctor.choices import choices
from pellucid.experiments.doctor.libraries import Library, libraries
from pellucid.experiments.doctor.selftest import self_test
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.precision import Precision, choose_precision
from pellucid.train.numerics import tiny_model
from pellucid.train.step import Updater
from pellucid.train.techniques import Techniques

CPU = Device("cpu", "for tests", has_bf16=True, can_compile=True, compile_reason="for tests")
BF16, FP32 = (choose_precision(name, CPU) for name in ("bf16", "fp32"))


@pytest.fixture(scope="module")
def diagnosis():
    return diagnose(device="cpu", runs=Path("nowhere/runs"))


def test_this_machine_computes_rightly(diagnosis):
    assert diagnosis.passed, diagnosis.self_test
    assert diagnosis.machine.memory_bytes > diagnosis.machine.free_memory_bytes > 0
    assert diagnosis.machine.runs_free_bytes > 0
    assert diagnosis.machine.threads == torch.get_num_threads()
    assert diagnosis.machine.cpu


def test_as_json_each_comparison_says_whether_it_passed(diagnosis):
    values = diagnosis.to_dict()
    assert values["passed"] is True
    assert all(comparison["passed"] for comparison in values["self_test"]["comparisons"])
    assert list(values["never_run"]) == list(NEVER_RUN)


def test_determinism_is_left_as_it_was():
    assert not torch.are_deterministic_algorithms_enabled()
    self_test(CPU, FP32)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("precision", "count"), [(FP32, 7), (BF16, 11)])
def test_what_a_run_would_compute_with_is_compared(precision: Precision, count: int):
    found = self_test(CPU, precision)
    assert found.passed, found
    assert len(found.comparisons) == count
    assert found.undetermined == ()


def test_a_fault_is_found_by_its_own_comparison():
    def drifting():
        """A model that is another one each time it is built."""
        model = tiny_model()
        with torch.no_grad():
            model.embedding.table += 1e-7 * torch.rand(1, generator=generator)
        return model

    generator = torch.Generator().manual_seed(0)
    failed = [c.what for c in self_test(CPU, FP32, build=drifting).comparisons if not c.passed]
    assert failed == ["logits, the same pass twice, to the bit", "gradients, the same pass twice, to the bit"]


@pytest.mark.slow
def test_compiled_blocks_are_compared_where_asked():
    device = choose_device("cpu")
    if not device.can_compile:
        pytest.skip("no compiler here")
    whats = [c.what for c in self_test(device, FP32, compiles=True).comparisons if c.passed]
    assert "gradients, compiled blocks against eager ones" in whats


@pytest.mark.parametrize(
    ("device", "attention", "determinism"),
    [
        (CPU, "batched products", "to the bit"),
        (Device("cuda", "a GPU", True, True, "Triton"), "FlexAttention", "asked of torch"),
        (Device("mps", "Apple GPU", False, False, "not dependable"), "fused", "not promised"),
    ],
)
def test_what_would_be_used_elsewhere(device, attention, determinism):
    rows = {row.what: row for row in choices(device, choose_precision("auto", device))}
    assert rows["device"].chosen == device.type
    assert attention in rows["attention"].chosen
    assert determinism in rows["determinism"].chosen
    assert rows["TF32"].chosen == ("off" if device.type == "cuda" else "not here")


@pytest.mark.parametrize(
    ("precision", "attention"), [(BF16, "batched products up to"), (FP32, "torch's fused kernel")]
)
def test_what_is_used_follows_the_precision(precision, attention):
    rows = {row.what: row.chosen for row in choices(CPU, precision)}
    assert rows["attention"].startswith(attention)
    assert rows["techniques"] == Techniques().resolved(CPU).line.removeprefix("techniques: ")
    assert "AdamW" in rows["optimizer"]


def test_a_wrong_gradient_of_the_tiled_loss_is_found(monkeypatch):
    gradients = Updater.gradients

    def wrong(self, batch):
        loss = gradients(self, batch)
        self.model.final_norm.gain.grad *= 1.01
        return loss

    monkeypatch.setattr(Updater, "gradients", wrong)
    failed = [c.what for c in self_test(CPU, FP32).comparisons if not c.passed]
    assert failed == ["gradients, a training update in fp32 against plain torch in fp32"]


def test_a_wrong_step_of_the_fused_optimizer_is_found(monkeypatch):
    apply = Updater.apply

    def wrong(self, batch, mean_loss, lr):
        outcome = apply(self, batch, mean_loss, lr)
        with torch.no_grad():
            self.model.final_norm.gain[0] += 0.001
        return outcome

    monkeypatch.setattr(Updater, "apply", wrong)
    failed = [c.what for c in self_test(CPU, FP32).comparisons if not c.passed]
    assert failed == ["weights, the optimizer's step after fp32 against torch's plain one"]


def test_a_compiler_that_does_not_work_is_said_where_kernels_are_asked_for(monkeypatch):
    broken = replace(CPU, compiler_fault=lambda device_type: "kernels cannot be built: no Python.h")
    monkeypatch.setattr(doctor, "choose_device", lambda wanted: broken)
    rows = {row.what: row for row in diagnose(full=True).choices}
    assert (rows["torch.compile"].chosen, rows["torch.compile"].reason) == (
        "off",
        broken.tried().compile_reason,
    )
    assert {row.what: row for row in diagnose().choices}["torch.compile"].chosen == "in runs of some minutes"


def test_libraries_come_with_their_extras():
    found = {library.name: library for library in libraries()}
    assert (
        found["torch"].version == torch.__version__.partition("+")[0]
        or found["torch"].version == torch.__version__
    )
    assert found["torch"].extra is None
    assert found["pyarrow"].extra == "data"
    assert found["ray"].extra == "cluster"
    assert found["gguf"].extra == "export"
    assert len(found) == len(libraries()), "each once"
    assert "pytest" not in found
    assert "pellucid" not in found


def test_a_missing_library_comes_with_what_to_type():
    assert Library("pyarrow", None, "data").hint == "pip install 'pellucid[data]'"
    assert Library("pyarrow", "21", "data").hint is None
