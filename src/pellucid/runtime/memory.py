"""How much memory this process has used at most, and how much the machine has. Bytes."""

from __future__ import annotations

import sys

import psutil
import torch


def peak_bytes(device_type: str = "cpu") -> int:
    """The most memory used so far: of the GPU by torch on CUDA, else of this process (resident set)."""
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def total_bytes(device_type: str = "cpu") -> int:
    """The memory that the device has."""
    if device_type == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
