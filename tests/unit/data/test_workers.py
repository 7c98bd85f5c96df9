import errno
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pellucid.data import workers as module
from pellucid.data.encoding import BlockEncoder, Division, EncodedBlock, Encoding
from pellucid.data.sources import Document, Faults, Place, open_source
from pellucid.data.workers import Setup, in_order, process_workers
from pellucid.errors import DataError, TokenizerError, WorkerError
from pellucid.tokenizers import ByteTokenizer, CharTokenizer

SETTINGS = Encoding(
    dtype="uint16",
    vocab_size=257,
    end_of_text_id=256,
    division=Division("content-hash", 1 << 63),
    parses_special=False,
    errors="strict",
)


@dataclass(frozen=True)
class Numbered:
    """A block of one document, its number."""

    number: int
    source_bytes: int = 1

    @property
    def begin(self) -> Place:
        return Place(0, self.number)

    @property
    def end(self) -> Place:
        return Place(0, self.number + 1)

    def documents(self, faults: Faults) -> Iterator[Document]:
        yield Document(f"text {self.number}", where=f"number {self.number}")


def blocks_of(folder: Path, texts: int = 40) -> list[Any]:
    """Blocks that another process can read."""
    folder.mkdir(exist_ok=True)
    for number in range(texts):
        (folder / f"{number:02d}.txt").write_text(f"text {number}")
    return list(open_source(folder).blocks())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ByteTokenizer().save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def texts_of(block: EncodedBlock) -> str:
    (side,) = (side for side in (block.train, block.val) if len(side.ids))
    return ByteTokenizer().decode(side.ids)


# In order


def test_blocks_come_back_in_their_order_however_long_each_takes() -> None:
    gates = [threading.Event() for _ in range(3)]

    def encode(block: Any) -> Any:
        if block.number < 2:
            assert gates[block.number + 1].wait(30)  # until the one after it is done
        gates[min(block.number, 2)].set()
        return block.number

    with ThreadPoolExecutor(3) as executor:
        results = list(in_order(map(Numbered, range(30)), encode=encode, executor=executor, workers=3))
    assert results == list(range(30))


@pytest.mark.parametrize("workers", [1, 3])
def test_few_blocks_are_asked_for_before_they_are_needed(workers: int) -> None:
    asked = 0

    def blocks() -> Iterator[Any]:
        nonlocal asked
        for number in range(100):
            asked += 1
            yield Numbered(number)

    with ThreadPoolExecutor(workers) as executor:
        results = in_order(blocks(), encode=lambda block: block, executor=executor, workers=workers)  # type: ignore[arg-type, return-value]
        for used, _ in enumerate(results, start=1):
            assert used <= asked <= used + 2 * workers


def test_an_error_comes_in_its_turn_and_ends_the_work() -> None:
    encoded: list[int] = []

    def encode(block: Any) -> Any:
        encoded.append(block.number)
        if block.number == 5:
            raise DataError("number 5: bad")
        return block.number

    results: list[Any] = []
    with ThreadPoolExecutor(2) as executor, pytest.raises(DataError, match="number 5: bad"):
        results.extend(in_order(map(Numbered, range(100)), encode=encode, executor=executor, workers=2))
    assert len(encoded) < 20


# Processes


def test_processes_give_what_this_process_gives(tmp_path: Path, saved: Path) -> None:
    blocks = blocks_of(tmp_path / "texts")
    encoder = BlockEncoder(ByteTokenizer(), SETTINGS, ByteTokenizer().encode_batch)
    with process_workers(Setup(saved, SETTINGS, accelerated=False), 2) as (executor, encode):
        there = list(in_order(blocks, encode=encode, executor=executor, workers=2))
    assert [texts_of(block) for block in there] == [f"text {number}<|endoftext|>" for number in range(40)]
    for found, wanted in zip(there, map(encoder, blocks), strict=True):
        for side, same in ((found.train, wanted.train), (found.val, wanted.val)):
            assert (side.ids.tolist(), side.ids.dtype) == (same.ids.tolist(), same.ids.dtype)
            assert side.starts.tolist() == same.starts.tolist()
            assert side.digests.tobytes() == same.digests.tobytes()
            assert side.document_bytes.tolist() == same.document_bytes.tolist()
        assert (found.end, found.source_bytes) == (wanted.end, wanted.source_bytes)


def test_an_error_in_a_process_is_the_error_here_and_no_process_stays(tmp_path: Path) -> None:
    CharTokenizer("tex 0123456").save(tmp_path / "tokenizer")
    blocks = blocks_of(tmp_path / "texts", 10)
    before = children()
    with (
        pytest.raises(TokenizerError, match="7"),
        process_workers(Setup(tmp_path / "tokenizer", SETTINGS, accelerated=False), 2) as (executor, encode),
    ):
        list(in_order(blocks, encode=encode, executor=executor, workers=2))
    assert children() == before


def test_a_file_that_goes_is_said_by_name(tmp_path: Path, saved: Path) -> None:
    blocks = blocks_of(tmp_path / "texts", 10)
    (tmp_path / "texts/03.txt").unlink()
    with (
        pytest.raises(DataError, match=r"03\.txt"),
        process_workers(Setup(saved, SETTINGS, accelerated=False), 2) as (executor, encode),
    ):
        list(in_order(blocks, encode=encode, executor=executor, workers=2))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_process_is_a_clear_error(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def watched(*words: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*words, **settings))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", watched)
    blocks = blocks_of(tmp_path / "texts")
    with process_workers(Setup(saved, SETTINGS, accelerated=False), 1) as (executor, encode):
        results = in_order(blocks, encode=encode, executor=executor, workers=1)
        assert next(results).end == blocks[0].end
        started[0].send_signal(signal.SIGKILL)
        with pytest.raises(
            WorkerError,
            match=r"a worker that encodes text ended with status -9: out of memory\? .*same command goes on",
        ):
            list(results)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_closed_pipe_is_a_clear_error_on_windows_too(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There writing to it is an OSError of EINVAL, no BrokenPipeError."""

    def as_there(stream: Any, value: object) -> None:
        try:
            write(stream, value)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None

    class Pipe:
        def close(self) -> None:
            with suppress(OSError):
                pipe.close()
            raise OSError(errno.EINVAL, "Invalid argument")

    write = module._write
    monkeypatch.setattr(module, "_write", as_there)
    process = module._Process(Setup(saved, SETTINGS, accelerated=False))
    (block,) = blocks_of(tmp_path / "texts", 1)
    assert texts_of(process(block)) == "text 0<|endoftext|>"
    process._process.kill()
    process._process.wait()
    with pytest.raises(WorkerError, match="ended with status -9"):
        process(block)
    pipe, process._input = process._input, Pipe()  # type: ignore[assignment]
    process.close()


def test_a_worker_whose_caller_has_gone_ends_quietly(tmp_path: Path, saved: Path) -> None:
    requests, (block,) = io.BytesIO(), blocks_of(tmp_path / "texts", 1)
    for value in (Setup(saved, SETTINGS, accelerated=False), block, block):
        pickle.dump(value, requests)
    requests.seek(0)
    tried: list[int] = []

    class Closed(io.BytesIO):
        def flush(self) -> None:
            tried.append(1)
            raise OSError(errno.EINVAL, "Invalid argument")

    module._serve(requests, Closed())
    assert tried == [1]


def test_a_script_without_a_guard_can_use_processes(tmp_path: Path, saved: Path) -> None:
    """`multiprocessing` would run the script once more in every process."""
    blocks_of(tmp_path / "texts", 5)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from pellucid.data import prepare as module\n"
        "from pellucid.data.sources import open_source\n"
        "from pellucid.tokenizers import ByteTokenizer\n"
        "print('once')\n"
        "module._FEW_BYTES = module._FEW_WORKERS = 0\n"
        "module.prepare(open_source('texts'), ByteTokenizer(), Path('out'), workers=2, val_fraction=0.5)\n"
    )
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "once\n", "")
    assert (tmp_path / "out/manifest.json").is_file()


def children() -> set[str]:
    """The processes that this one has started, where the system lists them."""
    return {
        child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()
    }
