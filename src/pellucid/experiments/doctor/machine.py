"""What this computer is."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pellucid.data.cache import cache_folder
from pellucid.runtime.device import Machine
from pellucid.runtime.memory import available_bytes, total_bytes

_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "neon", "sve", "bf16")


@dataclass(frozen=True)
class MachineFacts:
    system: str
    python: str
    cpu: str
    cores: int | None
    """Physical ones."""
    threads: int
    """That torch uses."""
    features: tuple[str, ...]
    """Of the processor, by torch's names, as far as they matter here."""
    memory_bytes: int
    """What this process may use."""
    free_memory_bytes: int
    gpu: str | None
    compiler: str | None
    """What torch.compile would build CPU kernels with."""
    runs_free_bytes: int
    """On the disk of the run directories."""
    cache_free_bytes: int
    """On the disk of prepared data."""


def look_around(runs: Path) -> MachineFacts:
    found = Machine.probe()
    return MachineFacts(
        system=platform.platform(),
        python=platform.python_version(),
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False),
        threads=found.cpu_threads,
        features=_features(),
        memory_bytes=total_bytes(),
        free_memory_bytes=available_bytes(),
        gpu=found.cuda_name or ("Apple GPU" if found.has_mps else None),
        compiler=found.compiler,
        runs_free_bytes=_free(runs),
        cache_free_bytes=_free(cache_folder()),
    )


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def _features() -> tuple[str, ...]:
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every torch that this project runs with
    found = ask() if ask else {}
    return tuple(name for name in _FEATURES if found.get(name))


def _free(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
