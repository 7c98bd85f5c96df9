"""Freed memory is kept: a second tensor of the same size finds its pages already there."""

import subprocess
import sys

import pytest

from pellucid.runtime.allocator import freed_memory_kept, release_freed_memory

PAGES = """
import resource, torch
from pellucid.runtime.allocator import freed_memory_kept

def faults():
    "Page faults of fifty tensors of 16 MB, one after another. The heap has to grow for the first few."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.empty(1 << 22).fill_(0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    kept = faults()
print(kept, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_pages_are_kept_for_the_next_tensor_and_given_back_afterwards() -> None:
    result = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    kept, as_usual = map(int, result.stdout.split())
    assert 0 < 3 * kept < as_usual


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
    result = subprocess.run([sys.executable, "-c", RELEASED], capture_output=True, text=True, check=True)
    assert int(result.stdout) > 200  # of the 256 MiB that were freed


def test_another_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        release_freed_memory()
