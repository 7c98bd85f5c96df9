"""What processes tell each other: nothing when alone, and between two real ones on loopback."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.runtime.distributed import ALONE, from_environment

PROGRAM = """
import json, sys
import torch
from pellucid.errors import DataError
from pellucid.runtime.distributed import from_environment

order = []
with from_environment("cpu") as processes:
    rank = processes.rank
    said = {
        "is_main": processes.is_main,
        "sum": processes.sum(torch.tensor([1.0, rank])).tolist(),
        "main_number": processes.main_number(0.1 + rank),
        "union": processes.union([1, 4][rank]),
        "on_main": processes.on_main(lambda: {"worked": order.append("on_main") or rank}),
        "main_first": processes.main_first(lambda: order.append("main_first") or rank),
        "order": order,
    }
    print(json.dumps(said), flush=True)

    def fail():
        raise DataError("no such text")

    processes.on_main(fail)
"""


@pytest.fixture(scope="module")
def two():
    """(status, what it said, its error output) of each of two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    results = [process.communicate(timeout=60) for process in started]
    return [(p.returncode, json.loads(out), err) for p, (out, err) in zip(started, results, strict=True)]


def test_two_processes_agree(two):
    main, other = (said for _, said, _ in two)
    assert (main["is_main"], other["is_main"]) == (True, False)
    for said in (main, other):
        assert said["sum"] == [2.0, 1.0]
        assert said["main_number"] == 0.1
        assert said["union"] == 5
        assert said["on_main"] == {"worked": 0}
    assert (main["main_first"], other["main_first"]) == (0, 1)
    assert (main["order"], other["order"]) == (["on_main", "main_first"], ["main_first"])


def test_an_error_of_the_main_one_ends_the_others_in_silence_with_its_status(two):
    (main_status, _, main_error), (status, _, error) = two
    assert main_status != 0
    assert "DataError: no such text" in main_error
    assert (status, error) == (2, "")


def test_alone_nothing_is_exchanged():
    tensor = torch.tensor(2.5)
    assert ALONE.is_main
    assert ALONE.sum(tensor) is tensor
    assert (ALONE.main_number(0.3), ALONE.union(6)) == (0.3, 6)
    assert (ALONE.on_main(lambda: "done"), ALONE.main_first(lambda: "done")) == ("done", "done")
    with pytest.raises(KeyError), ALONE:
        ALONE.on_main(lambda: {}["missing"])


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_without_others_a_process_is_alone(variables):
    assert from_environment("cpu", variables) is ALONE


def test_a_part_of_the_variables_is_refused():
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, and RANK, MASTER_PORT is not set.*torchrun"):
        from_environment("cpu", {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"})


def test_an_apple_gpu_is_not_shared():
    with pytest.raises(ConfigError, match="2 processes cannot share an Apple GPU"):
        from_environment(
            "mps",
            {**dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "0"), "WORLD_SIZE": "2"},
        )
