"""How much memory there is, how much this process uses, and which errors say that there was too little. Bytes.

torch is imported only where a GPU is asked about: the command line reads errors without it.
"""

from __future__ import annotations

import errno
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Control groups of version 1 and `ulimit` write "no limit" as a number above this."""


def peak_bytes(device_type: str = "cpu") -> int:
    """The most memory used so far: of the GPU by torch on CUDA, else of this process (resident set)."""
    if device_type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def total_bytes(device_type: str = "cpu") -> int:
    """The memory that this process may use of the device.

    On the CPU the least of what the machine has, what its container allows (control groups), and `ulimit -v`; on
    MPS what Metal recommends at most.
    """
    if device_type == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    if device_type == "mps":
        import torch

        return torch.mps.recommended_max_memory()
    limits = (container_limit(), _address_space_limit())
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit is not None)])


def available_bytes() -> int:
    """What this process can still take of main memory."""
    used, container, address_space = psutil.Process().memory_info(), container_limit(), _address_space_limit()
    room = [psutil.virtual_memory().available]
    room += [] if container is None else [container - used.rss]
    room += [] if address_space is None else [address_space - used.vms]
    return max(0, min(room))


def container_limit(root: Path = _CGROUP) -> int | None:
    """The limit of the control group that this process sees as the topmost one (versions 2 and 1); None without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((root / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
        return limit if limit < _UNLIMITED else None
    return None


def _address_space_limit() -> int | None:
    """What `ulimit -v` allows."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY or limit >= _UNLIMITED else limit


class GrowthWatch(AbstractContextManager["GrowthWatch"]):
    """How much the process's memory grew at most inside the block, looked at by a thread every two milliseconds.

    The system's own record of the peak (`peak_bytes`) never falls, so it says nothing of what comes after it.
    Memory that had been freed and is used again is not counted.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="pellucid-memory", daemon=True)

    @property
    def growth_bytes(self) -> int:
        return self._most - self._before

    def __enter__(self) -> GrowthWatch:
        self._before = self._most = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.002):
            self._most = max(self._most, self._process.memory_info().rss)


_WORDS = (
    "DefaultCPUAllocator",  # "can't allocate memory" on Linux, "not enough memory" on Windows
    "bad_alloc",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_UNEXPLAINED = ("could not create a primitive", "could not execute a primitive")
"""oneDNN's words, which give no reason: too little memory, or something that it cannot do."""
_SHORT_BYTES = 512 << 20
_SHORT_SHARE = 1 / 8
"""Memory is short where less than the larger of the two is free: what oneDNN asks for in one piece is not more."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is Python's, torch's, CUDA's, Metal's, oneDNN's or the system's word for too little memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return any(words in said for words in _WORDS) or (
        any(words in said for words in _UNEXPLAINED) and _memory_is_short()
    )


def _memory_is_short() -> bool:
    return available_bytes() < max(_SHORT_BYTES, _SHORT_SHARE * total_bytes())
