"""The machine that a benchmark ran on, and the libraries it found there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil


def describe_machine(threads: int, libraries: Iterable[str]) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    model, flags = platform.processor(), []
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        found = {key.strip(): value.strip() for key, value in fields.items()}
        model = found.get("model name", model)
        flags = [f for f in found.get("flags", "").split() if f.startswith(("amx", "avx"))]
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": model,
        "cpu_flags": flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "libraries": {name: version_of(name) for name in libraries},
    }


def version_of(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
