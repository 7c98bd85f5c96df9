"""What would be chosen on machines that are not here."""

import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.runtime.compiler import compiler_fault
from pellucid.runtime.device import Device, Machine, choose_device, no_fault

LAPTOP = Machine(
    has_cuda=False,
    has_mps=False,
    cuda_name="",
    cuda_has_bf16=False,
    has_triton=False,
    cpu_has_bf16=True,
    compiler="/usr/bin/g++",
    cpu_threads=2,
)
MAC = replace(LAPTOP, has_mps=True, cpu_has_bf16=False, compiler="/usr/bin/clang++", cpu_threads=8)
WORKSTATION = replace(LAPTOP, has_cuda=True, cuda_name="NVIDIA H200", cuda_has_bf16=True, has_triton=True)


@pytest.mark.parametrize(
    ("machine", "wanted", "device"),
    [
        (LAPTOP, None, Device("cpu", "no GPU found, 2 threads", True, True, "kernels by /usr/bin/g++")),
        (LAPTOP, "cpu", Device("cpu", "as asked, 2 threads", True, True, "kernels by /usr/bin/g++")),
        (MAC, None, Device("mps", "Apple GPU", False, False, "not dependable on MPS")),
        (MAC, "mps", Device("mps", "as asked", False, False, "not dependable on MPS")),
        (MAC, "cpu", Device("cpu", "as asked, 8 threads", False, True, "kernels by /usr/bin/clang++")),
        (
            WORKSTATION,
            None,
            Device("cuda", "a GPU is here: NVIDIA H200", True, True, "CUDA kernels by Triton"),
        ),
        (WORKSTATION, "cuda", Device("cuda", "as asked: NVIDIA H200", True, True, "CUDA kernels by Triton")),
        (
            replace(WORKSTATION, cuda_has_bf16=False, has_triton=False),
            None,
            Device("cuda", "a GPU is here: NVIDIA H200", False, False, "Triton is not installed"),
        ),
        (
            replace(LAPTOP, compiler=None),
            None,
            Device("cpu", "no GPU found, 2 threads", True, False, "no C++ compiler found"),
        ),
        (
            replace(WORKSTATION, has_mps=True),  # never seen, but the order is stated
            None,
            Device("cuda", "a GPU is here: NVIDIA H200", True, True, "CUDA kernels by Triton"),
        ),
    ],
)
def test_choice(machine: Machine, wanted: str | None, device: Device) -> None:
    assert choose_device(wanted, machine) == device


@pytest.mark.parametrize(
    ("machine", "wanted", "message"),
    [
        (LAPTOP, "cuda", "--device cuda: not available on this machine (found: cpu)"),
        (MAC, "cuda", "--device cuda: not available on this machine (found: mps, cpu)"),
        (WORKSTATION, "mps", "--device mps: not available on this machine (found: cuda, cpu)"),
        (LAPTOP, "gpu", "--device gpu: there is no such device; choose cuda, mps or cpu"),
    ],
)
def test_what_is_not_here_is_refused(machine: Machine, wanted: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_device(wanted, machine)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_the_torch_device(name: str) -> None:
    everything = replace(WORKSTATION, has_mps=True)
    assert choose_device(name, everything).torch == torch.device(name)


def test_this_machine() -> None:
    machine, device = Machine.probe(), choose_device()
    assert machine.has_cuda == torch.cuda.is_available() == (machine.cuda_name != "")
    assert machine.cpu_threads == torch.get_num_threads()
    assert replace(choose_device(device.type), reason=device.reason) == device
    assert torch.ones(2, device=device.torch).sum() == 2


@pytest.mark.parametrize("wanted", ["cpu", "cuda"])
def test_a_compiler_is_tried_where_it_is_asked_to_be(wanted: str) -> None:
    broken = choose_device(wanted, replace(WORKSTATION, compiler_fault=lambda kind: f"no {kind} kernels"))
    assert broken.can_compile
    tried = broken.tried()
    assert (tried.can_compile, tried.compile_reason) == (False, f"no {wanted} kernels")
    assert choose_device(wanted, WORKSTATION).tried() == choose_device(wanted, WORKSTATION)


def test_only_a_machine_that_was_looked_at_builds_kernels() -> None:
    assert Machine.probe().compiler_fault is compiler_fault
    assert choose_device("cpu").compiler_fault is compiler_fault
    assert choose_device("cpu", LAPTOP).compiler_fault is no_fault


@pytest.mark.skipif(os.name == "nt", reason="the names of Windows' compiler are others")
def test_the_compiler_is_the_one_that_torch_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Machine.probe().compiler is None
    for name in ("clang++", "g++", "my-compiler"):  # each preferred to those before
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        if name == "my-compiler":
            monkeypatch.setenv("CXX", name)
        assert Machine.probe().compiler == str(tmp_path / name)
    monkeypatch.setenv("CXX", "not-installed")
    assert Machine.probe().compiler == str(tmp_path / "g++")


def test_the_compiler_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(shutil, "which", lambda name: f"C:\\{name}.exe" if name == "cl" else None)
    assert Machine.probe().compiler == "C:\\cl.exe"


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_bf16_of_the_cpu(amx: bool, avx512: bool, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert Machine.probe().cpu_has_bf16 == expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")  # another torch may not have it
    assert Machine.probe().cpu_has_bf16 == avx512
