"""Preparation that is killed, at any moment and in any of its processes, and goes on to the same bytes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pellucid.data.prepare import prepare
from pellucid.data.sources import open_source
from pellucid.tokenizers import ByteTokenizer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def write_texts(path: Path, count: int, distinct: int) -> Path:
    texts = [f"{n}: {'a word and more of it ' * (1 + n % 7)}" for n in range(distinct)]
    texts = [texts[number % distinct] for number in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def duplicates(directory: Path) -> int:
    manifest = json.loads((directory / "manifest.json").read_text())
    return manifest["train"]["duplicates"] + manifest["val"]["duplicates"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that can be: a killed process needs no disk to keep what it wrote."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


# Before every single access to the directory

EVERY_MOMENT = """
import os, shutil, sys
from pathlib import Path
from pellucid.data.prepare import prepare
from pellucid.data.sources import content, open_source
from pellucid.tokenizers import ByteTokenizer

path, folder, deduplicate, save_every_s = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True", int(sys.argv[4])
content.BLOCK_BYTES = 500

def made(out):
    prepare(open_source(path), ByteTokenizer(), out, shard_tokens=500, save_every_s=save_every_s,
            deduplicate=deduplicate)
    return {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()}

def killed(out, moment):
    "Whether a process that prepares `out` lived to be killed at a moment."
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = moment
    def hook(event, words):
        nonlocal left
        if event.startswith(("open", "os.", "sqlite3.")) and str(out) in map(str, words[:2]) or any(
            str(word).startswith(str(out) + "/") for word in words[:2]
        ):
            left -= 1
            if left == 0:
                os._exit(9)
    sys.addaudithook(hook)
    made(out)
    os._exit(0)

whole = made(folder / "whole")
moment = 0
while True:
    moment += 1
    out = folder / f"out-{moment}"
    if not killed(out, moment):
        break
    again = killed(out, 11)  # and once more, near the beginning of what went on
    found = made(out)
    assert found == whole, f"killed at {moment}: {sorted(map(str, found.keys() ^ whole.keys()))}"
    shutil.rmtree(out)
print(moment)
"""


@pytest.mark.parametrize(("deduplicate", "save_every_s"), [(False, 0), (True, 10)])
def test_a_kill_before_any_access_to_the_directory_changes_nothing(
    folder: Path, deduplicate: bool, save_every_s: int
) -> None:
    path = write_texts(folder / "a.jsonl", count=30, distinct=13 if deduplicate else 30)
    words = [sys.executable, "-c", EVERY_MOMENT, path, folder, str(deduplicate), str(save_every_s)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 60, "moments"
    assert duplicates(folder / "whole") == (17 if deduplicate else 0)


# At random moments

RANDOM_MOMENTS = """
import json, os, random, signal, sys, time
from pathlib import Path
from pellucid.data import prepare as module
from pellucid.data.sources import content, open_source
from pellucid.tokenizers import ByteTokenizer

path, out, deduplicate, workers = *map(Path, sys.argv[1:3]), sys.argv[3] == "True", int(sys.argv[4])
content.BLOCK_BYTES = 5_000
module._FEW_BYTES = module._FEW_WORKERS = 0

def made(out, workers=1, progress=None):
    module.prepare(open_source(path), ByteTokenizer(), out, shard_tokens=10_000, save_every_s=0.02,
                   deduplicate=deduplicate, workers=workers, progress=progress)

def known_shards():
    "Name → (inode, time of change) of the finished files that the journal vouches for."
    try:
        journal = json.loads((out / "unfinished.json").read_text())
    except FileNotFoundError:
        return {}
    records = [r for side in ("train", "val") for r in journal.get(side, {}).get("writer", {}).get("finished", ())]
    files = [out / (record["name"] + suffix) for record in records for suffix in (".bin", ".starts")]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

def life(heard):
    "Prepares until it is killed: after ten blocks it stands still, so no machine is fast enough to end."
    blocks = 0
    def report(progress):
        nonlocal blocks
        blocks += 1
        os.write(heard, b".")
        time.sleep(3600 if blocks == 10 else 0.02)
    made(out, workers, report)

draw, progressed, first = random.Random(20), 0, {}
for number in range(12):
    hears, heard = os.pipe()
    child = os.fork()
    if not child:
        life(heard)
        os._exit(0)
    os.close(heard)
    if number % 3:  # two of three die while it is at work, the others while it starts, at work or not
        assert os.read(hears, 1), "it ended before its first block"
    time.sleep(draw.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    os.close(hears)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended before it could be killed"
    assert not (out / "manifest.json").exists()
    now = known_shards()
    assert first.items() <= now.items(), "a finished shard was made again"
    progressed += len(now) > len(first)
    first = now
assert progressed >= 3, "the kills came before anything was finished"
made(out, workers)
for name, (inode, changed) in first.items():
    stat = (out / name).stat()
    assert (stat.st_ino, stat.st_mtime_ns) == (inode, changed), name
made(out.with_name("whole"))
"""


@pytest.mark.parametrize(
    ("deduplicate", "workers"),
    [(True, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((False, 1), (True, 2)))],
)
def test_kills_at_random_moments_change_nothing(folder: Path, deduplicate: bool, workers: int) -> None:
    path, out = write_texts(folder / "a.jsonl", 8000, 3000 if deduplicate else 8000), folder / "out"
    words = [sys.executable, "-c", RANDOM_MOMENTS, path, out, str(deduplicate), str(workers)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(out) == contents(folder / "whole")
    assert duplicates(out) == (5000 if deduplicate else 0)


# A worker

PREPARE = """
import os, sys, time
from pathlib import Path
from pellucid.data import prepare as module
from pellucid.data.sources import content, open_source
from pellucid.tokenizers import ByteTokenizer

path, out, deduplicate, workers, slowly = map(str, sys.argv[1:])
path, out, deduplicate, workers = Path(path), Path(out), deduplicate == "True", int(workers)

def wait(progress):
    time.sleep(float(slowly))
    while "HELD_BY" in os.environ and Path(os.environ["HELD_BY"]).exists():
        time.sleep(0.01)

content.BLOCK_BYTES = 20_000
module._FEW_BYTES = module._FEW_WORKERS = 0
source = open_source(path)
print("ready", flush=True)
module.prepare(source, ByteTokenizer(), out, shard_tokens=30_000, save_every_s=0.02, deduplicate=deduplicate,
               workers=workers, progress=wait)
"""


def start(path: Path, out: Path, *, deduplicate: bool, workers: int, slowly: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PREPARE, path, out, str(deduplicate), str(workers), str(slowly)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


KILL_A_WORKER = """
import os, signal, subprocess, sys
from pathlib import Path
from pellucid.data import prepare as module, workers
from pellucid.data.sources import content, open_source
from pellucid.errors import WorkerError
from pellucid.tokenizers import ByteTokenizer

content.BLOCK_BYTES = 20_000
module._FEW_BYTES = module._FEW_WORKERS = 0
path, out, shard_tokens = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
started, popen = [], subprocess.Popen

def watched(*words, **settings):
    started.append(popen(*words, **settings))
    return started[-1]

workers.subprocess.Popen = watched
number = 0

def kill_one(progress):
    global number
    number += 1
    if number == 30:
        started[1].send_signal(signal.SIGKILL)

def run(progress):
    return module.prepare(open_source(path), ByteTokenizer(), out, shard_tokens=shard_tokens, workers=2,
                          progress=progress, save_every_s=0)

try:
    run(kill_one)
except WorkerError as error:
    print(error)
assert [process.poll() is not None for process in started] == [True, True], "a worker was left behind"
assert (out / "train-00001.bin").exists() == (shard_tokens < 10**6), "finished shards are kept"
assert not (out / "manifest.json").exists()
calls = []
run(calls.append)
assert calls[0].source_bytes > 20 * 20_000 > calls[0].source_bytes_here, "it began anew"
"""


@pytest.mark.parametrize("shard_tokens", [30_000, pytest.param(10**8, marks=pytest.mark.slow)])
def test_a_killed_worker_is_said_and_the_same_call_finishes(tmp_path: Path, shard_tokens: int) -> None:
    path, out = write_texts(tmp_path / "a.jsonl", 20_000, 20_000), tmp_path / "out"
    words = [sys.executable, "-c", KILL_A_WORKER, path, out, str(shard_tokens)]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "a worker that encodes text ended with status -9: out of memory? Use fewer --workers; what is finished is "
        "kept, and the same command goes on from there\n"
    )
    prepare(open_source(path), ByteTokenizer(), tmp_path / "whole", shard_tokens=shard_tokens)
    assert contents(out) == contents(tmp_path / "whole")


def test_workers_end_when_the_process_that_they_work_for_is_killed(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.jsonl", 20_000, 20_000)
    process = start(path, tmp_path / "out", deduplicate=False, workers=2, slowly=0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.communicate()
        pytest.skip("needs Linux's list of a process's children")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("train-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = [
        int(child)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    assert len(found) == 2
    process.kill()
    process.communicate()
    while any(is_running(child) for child in found):
        assert time.monotonic() < deadline, "workers are left behind"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# Two at once


def test_of_two_processes_one_waits_and_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write_texts(tmp_path / "a.jsonl", 2000, 2000), tmp_path / "out"
    held = tmp_path / "held"
    held.touch()
    monkeypatch.setenv("HELD_BY", str(held))
    first = start(path, out, deduplicate=False, workers=1, slowly=0)
    second = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "prepare", path, "--out", out, "--shard-tokens", "30000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "400"},
    )
    assert second.stderr is not None
    assert second.stderr.readline().endswith("out: another process is preparing it; waiting\n")
    held.unlink()
    assert first.communicate(timeout=120) == ("", None)
    _, said = second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "out: already prepared from the same source and tokenizer; used as it is" in said
    prepare(open_source(path), ByteTokenizer(), tmp_path / "whole", shard_tokens=30_000)
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".out*"))


# Memory

MEMORY = """
import json, resource, sys
from pathlib import Path
from pellucid.data.prepare import prepare
from pellucid.data.sources import open_source
from pellucid.tokenizers import ByteTokenizer

folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
path = folder / f"{megabytes}.jsonl"
with path.open("w") as file:
    for number in range(1000 * megabytes):
        file.write(json.dumps({"text": f"{number} " + "some words of it " * 58}) + "\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare(open_source(path), ByteTokenizer(), folder / f"out-{megabytes}", deduplicate=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def grown_mb(megabytes: int) -> int:
        words = [sys.executable, "-c", MEMORY, tmp_path, str(megabytes)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    small, large = grown_mb(4), grown_mb(80)
    assert large - small < 60, (small, large)
