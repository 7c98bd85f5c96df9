import psutil
import pytest
import torch

from pellucid.runtime.memory import peak_bytes, total_bytes


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
    assert total_bytes() == psutil.virtual_memory().total
    assert peak_bytes() < total_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    before = torch.cuda.memory_allocated()
    block = torch.empty(32 << 20, dtype=torch.uint8, device="cuda")
    assert peak_bytes("cuda") >= before + block.numel()
    assert total_bytes("cuda") > peak_bytes("cuda")
