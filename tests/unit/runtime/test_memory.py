import errno
import mmap
import time

import psutil
import pytest
import torch

from pellucid.runtime import memory
from pellucid.runtime.memory import (
    GrowthWatch,
    available_bytes,
    container_limit,
    is_out_of_memory,
    peak_bytes,
    total_bytes,
)


def test_the_peak_is_at_least_what_is_used_now() -> None:
    assert peak_bytes() >= 0.95 * psutil.Process().memory_info().rss


def test_the_peak_grows_with_what_is_used_and_never_falls() -> None:
    before = peak_bytes()
    held = psutil.Process().memory_info().rss
    size = (before - held) + (64 << 20)  # 64 MiB above the highest so far
    block = bytearray(size)
    block[::1024] = b"x" * len(block[::1024])  # a page that nobody touched is not there
    grown = peak_bytes()
    del block
    assert grown - before > 48 << 20
    assert peak_bytes() >= grown


def test_the_peak_is_counted_in_bytes() -> None:
    assert 10 << 20 < peak_bytes() < 100 << 30


def test_total() -> None:
    assert 0 < total_bytes() <= psutil.virtual_memory().total
    assert peak_bytes() < total_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    before = torch.cuda.memory_allocated()
    block = torch.empty(32 << 20, dtype=torch.uint8, device="cuda")
    assert peak_bytes("cuda") >= before + block.numel()
    assert total_bytes("cuda") > peak_bytes("cuda")


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "1048576\n", 1 << 20),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2097152\n", 2 << 20),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("other", "5", None),
    ],
)
def test_the_limit_of_a_container(tmp_path, name, text, limit) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert container_limit(tmp_path) == limit


def test_a_container_has_less_than_the_machine(monkeypatch) -> None:
    monkeypatch.setattr(memory, "container_limit", lambda: 1 << 20)
    assert total_bytes() == 1 << 20
    assert available_bytes() == 0


def test_what_is_free_is_less_than_all() -> None:
    assert 0 < available_bytes() < total_bytes()


def test_growth_is_watched_whatever_came_before() -> None:
    # Mapped by hand: the allocator may hand out memory that an earlier test freed, and the process would not grow.
    with mmap.mmap(-1, 96 << 20) as before:
        _touch(before)  # the process's own record of its peak stays above what follows
    with GrowthWatch() as watch, mmap.mmap(-1, 64 << 20) as block:
        _touch(block)
        ends = time.monotonic() + 20  # on a busy machine it may be a while before the thread looks
        while watch.growth_bytes < 48 << 20 and time.monotonic() < ends:
            time.sleep(0.01)
    assert 48 << 20 < watch.growth_bytes < 160 << 20


def _touch(memory: mmap.mmap) -> None:
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page] = 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_words_for_too_little_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2"), OSError(errno.ENOSPC, "no space"), ValueError("DefaultCPUAllocator")],
)
def test_other_words(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("free", "total", "is_short"),
    [(100 << 20, 64 << 30, True), (4 << 30, 64 << 30, True), (400 << 20, 2 << 30, True), (1 << 30, 2 << 30, False),
     (32 << 30, 64 << 30, False)],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["create", "execute"])
def test_onednn_gives_no_reason_so_that_the_free_memory_decides(
    monkeypatch, free, total, is_short, verb
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    monkeypatch.setattr(memory, "total_bytes", lambda: total)
    assert is_out_of_memory(RuntimeError(f"could not {verb} a primitive")) is is_short


def test_the_cpu_allocator_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_metal_says_how_much_it_recommends(monkeypatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 123)
    assert total_bytes("mps") == 123
