"""Freed memory is kept: a second tensor of the same size finds its pages already there."""

import subprocess
import sys

import pytest

from pellucid.runtime.allocator import freed_memory_kept, release_freed_memory

PAGES = """
import resource, sys, torch
from contextlib import nullcontext
from pellucid.runtime.allocator import freed_memory_kept

# In a process of its own each: what the heap has kept would serve what comes after it as well.
with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(30):  # 64 MB, which the C library would map and unmap; the heap has to grow for the first few
        torch.empty(1 << 24).fill_(0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_pages_are_kept_for_the_next_tensor() -> None:
    kept, as_usual = (number_printed(PAGES, word) for word in ("kept", "as usual"))
    assert 0 < 3 * kept < as_usual


LEFT = """
import psutil, torch
from pellucid.runtime.allocator import freed_memory_kept

with freed_memory_kept():
    torch.empty(1 << 26).fill_(0)
    with freed_memory_kept():  # whose end gives nothing back
        pass
    inside = psutil.Process().memory_info().rss >> 20
print(inside - (psutil.Process().memory_info().rss >> 20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_what_was_kept_is_given_back_at_the_end() -> None:
    assert number_printed(LEFT) > 200  # of the 256 MiB that were freed


def number_printed(program: str, *words: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


RELEASED = """
import psutil, torch
from pellucid.runtime.allocator import freed_memory_kept, release_freed_memory

def resident():
    return psutil.Process().memory_info().rss >> 20

with freed_memory_kept():
    torch.empty(1 << 26).fill_(0)
    before = resident()
    release_freed_memory()
    print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_kept_memory_is_given_back_when_asked_for() -> None:
    assert number_printed(RELEASED) > 200  # of the 256 MiB that were freed


def test_another_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        release_freed_memory()
