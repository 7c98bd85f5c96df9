"""Which processor this is, and what it can do: equal numbers are promised for equal ones only."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import torch

_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "neon", "sve", "bf16")
"""Those that decide by which kernels numbers are computed here."""


def cpu_name() -> str:
    """The maker's name of it; where the system does not say, the instruction set's."""
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


def cpu_features() -> tuple[str, ...]:
    """What of `_FEATURES` it has, by torch's names."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every torch that this project runs with
    found = ask() if ask else {}
    return tuple(name for name in _FEATURES if found.get(name))
