"""How freed memory is kept for what needs it next, and given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_USUAL = {_M_MMAP_MAX: 65536, _M_TRIM_THRESHOLD: 128 << 10}
_KEEPING = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
_depth = 0
"""How many bodies run in which memory is kept: the C library, too, has one setting for the whole process."""


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Have glibc keep freed memory for the next tensor, instead of giving it back, while the body runs.

    A large tensor is otherwise mapped when it is made and unmapped when it is freed, and the kernel clears every page
    of it again: a fifth of a training step at 124M parameters (docs/experiments.md). It changes nothing where the C
    library is another (macOS, Windows, musl). A body inside another one changes nothing, nor does its end.
    """
    global _depth
    library = _glibc()
    if library is None:
        yield
        return
    _set(library, _KEEPING)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _set(library, _USUAL)
            library.malloc_trim(0)


def release_freed_memory() -> None:
    """Give back what was freed and kept: for when memory ran out, and what is needed next has another size."""
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def can_keep_memory() -> bool:
    """Whether `freed_memory_kept` changes anything here."""
    return _glibc() is not None


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None


def _set(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
