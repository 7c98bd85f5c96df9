"""What this computer is."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from pellucid.runtime.device import Machine
from pellucid.runtime.files import cache_folder
from pellucid.runtime.memory import available_bytes, total_bytes
from pellucid.runtime.processor import cpu_features, cpu_name


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
        cpu=cpu_name(),
        cores=psutil.cpu_count(logical=False),
        threads=found.cpu_threads,
        features=cpu_features(),
        memory_bytes=total_bytes(),
        free_memory_bytes=available_bytes(),
        gpu=found.cuda_name or ("Apple GPU" if found.has_mps else None),
        compiler=found.compiler,
        runs_free_bytes=_free(runs),
        cache_free_bytes=_free(cache_folder()),
    )


def _free(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
