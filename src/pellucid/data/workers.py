"""Blocks encoded by several workers at once, and given back in the order of their source.

Two kinds of worker do the same work. Threads start in no time, and share one interpreter lock: enough where
there is little to do. Processes are fresh interpreters that run this file, fed through their standard input;
unlike `multiprocessing` they never import the caller's main module, so a notebook or a script can prepare data
with no guard around it, on every operating system. They end when their input does, however the caller ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pellucid.data.encoding import BlockEncoder, EncodedBlock, Encoding
from pellucid.data.sources.base import Block
from pellucid.errors import PellucidError, WorkerError
from pellucid.tokenizers import load
from pellucid.tokenizers.accelerate import fastest_encoder

_ROOT = str(Path(__file__).parents[2])
_AHEAD = 2
"""Blocks in the making or waiting for their turn, a worker."""

Encode = Callable[[Block], EncodedBlock]


def in_order(
    blocks: Iterable[Block], *, encode: Encode, executor: Executor, workers: int
) -> Iterator[EncodedBlock]:
    """Encode blocks in an executor; give them back in order, with a bounded number of them in memory.

    The blocks are asked for here, in the caller's thread.
    """
    pending: deque[Future[EncodedBlock]] = deque()
    try:
        for block in blocks:
            pending.append(executor.submit(encode, block))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@dataclass(frozen=True)
class Setup:
    """What a worker process makes its encoder from."""

    tokenizer_directory: Path
    settings: Encoding
    accelerated: bool
    """Whether a faster encoder has proved equal to the tokenizer's own on this source."""


@contextmanager
def process_workers(setup: Setup, workers: int) -> Generator[tuple[Executor, Encode]]:
    """Workers that are processes; a thread of this process talks to each."""
    started: list[_Process] = []
    mine = threading.local()

    def start() -> None:
        mine.process = _Process(setup)
        started.append(mine.process)

    def encode(block: Block) -> EncodedBlock:
        return mine.process(block)

    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="pellucid-worker", initializer=start) as executor:
            yield executor, encode
    finally:
        for process in started:
            process.close()


class _Process:
    """A worker process, seen from outside."""

    def __init__(self, setup: Setup) -> None:
        environment = os.environ | {
            # One thread each: the workers share the cores already.
            "RAYON_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            # The package that is running here, and nothing that happens to lie in the current folder.
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pellucid.data.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._send(setup)

    def __call__(self, block: Block) -> EncodedBlock:
        self._send(block)
        try:
            answer: EncodedBlock | Exception = pickle.load(self._output)
        except (EOFError, pickle.UnpicklingError):
            raise self._death() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, value: object) -> None:
        try:
            _write(self._input, value)
        except OSError:  # BrokenPipeError, or on Windows EINVAL
            raise self._death() from None

    def _death(self) -> WorkerError:
        status = self._process.wait()
        return WorkerError(
            f"a worker that encodes text ended with status {status}"
            + (": out of memory? Use fewer --workers" if status in (-9, 137) else "")
            + "; what is finished is kept, and the same command goes on from there"
        )

    def close(self) -> None:
        with suppress(OSError):
            self._input.close()
        self._output.close()
        self._process.wait()


def _write(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream, protocol=5)
    stream.flush()


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker process does: answer each block with its ids, or with the error that it met."""
    try:
        setup: Setup = pickle.load(requests)
    except EOFError:  # who wanted a worker is gone already
        return
    tokenizer = load(setup.tokenizer_directory)
    encode = fastest_encoder(tokenizer).encode_batch if setup.accelerated else tokenizer.encode_batch
    encoder = BlockEncoder(tokenizer, setup.settings, encode)
    while True:
        try:
            block: Any = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: object = encoder(block)
        except PellucidError as error:
            answer = error
        try:
            _write(answers, answer)
        except OSError:  # nobody waits for the answer any more
            return


def main() -> None:
    """Serve on standard input and output; what a library prints goes to standard error instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first one decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
