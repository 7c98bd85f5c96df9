"""Which device a run uses and what that device can do, as one value with the reason beside each choice."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from pellucid.errors import ConfigError
from pellucid.runtime.compiler import compiler_fault
from pellucid.runtime.native import find_compiler

DeviceType = Literal["cuda", "mps", "cpu"]


def no_fault(device_type: str) -> None:
    """What is said of the compiler of a machine that was made up."""


@dataclass(frozen=True)
class Machine:
    """What was found on this machine. A test hands over another one to see what would be chosen there."""

    has_cuda: bool
    has_mps: bool
    cuda_name: str
    cuda_has_bf16: bool
    has_triton: bool
    """Whether torch.compile can build CUDA kernels; torch brings Triton on Linux."""
    cpu_has_bf16: bool
    compiler: str | None
    """What torch.compile would build CPU kernels with; None when there is no C++ compiler."""
    cpu_threads: int
    compiler_fault: Callable[[str], str | None] = field(default=no_fault, compare=False, repr=False)
    """Builds a kernel for a device; what went wrong, if anything did."""

    @classmethod
    def probe(cls) -> Machine:
        has_cuda = torch.cuda.is_available()
        return cls(
            has_cuda=has_cuda,
            has_mps=torch.backends.mps.is_available(),
            cuda_name=torch.cuda.get_device_name() if has_cuda else "",
            cuda_has_bf16=has_cuda and torch.cuda.is_bf16_supported(including_emulation=False),
            has_triton=importlib.util.find_spec("triton") is not None,
            cpu_has_bf16=cpu_has_bf16(),
            compiler=_cpp_compiler(),
            cpu_threads=torch.get_num_threads(),
            compiler_fault=compiler_fault,
        )


@dataclass(frozen=True)
class Device:
    """The device of a run and its abilities."""

    type: DeviceType
    reason: str
    has_bf16: bool
    can_compile: bool
    """Whether a compiler was found; `tried` says whether it works."""
    compile_reason: str
    compiler_fault: Callable[[str], str | None] = field(default=no_fault, compare=False, repr=False)
    """As the machine's."""

    def tried(self) -> Device:
        """The same once a kernel has been built where one can be; where that fails, without compiling and why."""
        fault = self.compiler_fault(self.type) if self.can_compile else None
        return self if fault is None else replace(self, can_compile=False, compile_reason=fault)

    @property
    def torch(self) -> torch.device:
        return torch.device(self.type)

    @property
    def has_tf32(self) -> bool:
        """NVIDIA's GPUs got it together with bf16, in the Ampere generation."""
        return self.type == "cuda" and self.has_bf16


def choose_device(wanted: str | None = None, machine: Machine | None = None) -> Device:
    """CUDA before MPS before the CPU, unless one is forced. Raises ConfigError when the wanted one is not here."""
    machine = machine or Machine.probe()
    here = {"cuda": machine.has_cuda, "mps": machine.has_mps, "cpu": True}
    if wanted is not None and wanted not in here:
        raise ConfigError(f"--device {wanted}: there is no such device; choose cuda, mps or cpu")
    if wanted is not None and not here[wanted]:
        found = ", ".join(name for name, present in here.items() if present)
        raise ConfigError(f"--device {wanted}: not available on this machine (found: {found})")
    kind = wanted or next(name for name, present in here.items() if present)
    reason = (
        "as asked" if wanted else {"cuda": "a GPU is here", "mps": "Apple GPU", "cpu": "no GPU found"}[kind]
    )
    if kind == "cuda":
        reason += f": {machine.cuda_name}"
        why = "CUDA kernels by Triton" if machine.has_triton else "Triton is not installed"
        return Device("cuda", reason, machine.cuda_has_bf16, machine.has_triton, why, machine.compiler_fault)
    if kind == "mps":
        return Device("mps", reason, False, False, "not dependable on MPS")
    reason += f", {machine.cpu_threads} threads"
    why = f"kernels by {machine.compiler}" if machine.compiler else "no C++ compiler found"
    return Device(
        "cpu", reason, machine.cpu_has_bf16, machine.compiler is not None, why, machine.compiler_fault
    )


def cpu_has_bf16() -> bool:
    """Whether bf16 matrix products run in hardware: AMX or AVX-512 BF16 on x86 (Arm has no probe in torch yet)."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))


def _cpp_compiler() -> str | None:
    if platform.system() == "Windows":  # needs a developer shell with cl; asking for it is left to the user
        return shutil.which("cl")
    return find_compiler()
