"""Two real processes on loopback against one: the same losses, norms and weights on the same global batches."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("equal_shares.py")
spec = importlib.util.spec_from_file_location("equal_shares", SCRIPT)
equal_shares = importlib.util.module_from_spec(spec)
spec.loader.exec_module(equal_shares)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What came of every case in each of two processes."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, out], env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    return [torch.load(out / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one():
    return equal_shares.train_all()


@pytest.mark.parametrize("case", equal_shares.CASES)
def test_two_processes_equal_one(one, two, case):
    (reported, weights), (main_reported, main_weights) = one[case], two[0][case]
    assert reported[-1, 0] != reported[0, 0]
    torch.testing.assert_close(main_reported, reported, rtol=0, atol=1e-6)
    torch.testing.assert_close(main_weights, weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", equal_shares.CASES)
def test_all_processes_have_the_same_weights_and_reports_to_the_bit(two, case):
    for main, other in zip(two[0][case], two[1][case], strict=True):
        assert torch.equal(main, other)
