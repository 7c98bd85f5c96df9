"""A disk that is really full: a small file system in memory, where this user may mount one."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pellucid import checkpoint
from pellucid.cli.main import main
from pellucid.data import prepare as prepare_module
from pellucid.errors import StorageError
from pellucid.train.facts import Request
from pellucid.train.hooks import Hook
from pellucid.train.run_files import read_facts


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many MB."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        if sys.platform != "linux" or shutil.which("mount") is None or subprocess.run(
            command, capture_output=True, check=False
        ).returncode:  # fmt: skip
            pytest.skip("only root on Linux can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class FillTheDisk(Hook):
    """Another process takes what is left, after an update."""

    def __init__(self, disk: Path, step: int) -> None:
        self.disk, self.step = disk, step

    def on_step(self, facts):
        if facts.step == self.step:
            with (self.disk / "other").open("wb") as file:
                file.write(bytes(shutil.disk_usage(self.disk).free))
        return Request.NOTHING


def test_a_disk_too_small_for_a_checkpoint_is_refused_before_training(small_disk, tiny, workdir, capsys):
    disk = small_disk(2)
    assert main(["train", *tiny, f"run.dir={disk / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "the first checkpoint needs 8.5 MB and the disk has 2" in said
    assert "Traceback" not in said
    assert not list(disk.rglob("step-*"))


def test_a_disk_too_small_for_the_shards_is_refused_before_preparing(small_disk, corpus, workdir, capsys):
    disk = small_disk(1)
    (disk / "other").write_bytes(bytes(1_030_000))
    assert main(["prepare", str(corpus), "--out", str(disk / "shards")]) == 2
    assert "preparing plays.txt needs" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("step", "every"), [(2, 4), (6, 4), (2, 4000)], ids=["first save", "later save", "log"]
)
def test_a_disk_that_fills_up_while_training_is_said_and_what_was_saved_is_whole(
    small_disk, train_tiny, step, every
):
    disk = small_disk(20)
    run = disk / "run"
    words = ("train.steps=4000", "train.eval_every=4000", f"train.checkpoint_every={every}")
    with pytest.raises(StorageError, match=r"no space left on device|a checkpoint needs"):
        train_tiny(f"run.dir={run}", *words, hooks=[FillTheDisk(disk, step)])
    saved = [path for path in (run / "checkpoints").iterdir() if path.name.startswith("step-")]
    assert len(saved) == (step > every)
    for path in saved:
        checkpoint.verify(path)

    (disk / "other").unlink()
    assert main(["train", "--resume", str(run), "train.steps=12"]) == 0
    steps = [fact["step"] for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"]
    assert steps == list(range(1, 13))


@pytest.mark.slow
def test_a_process_whose_disk_fills_up_ends_with_one_line_and_goes_on_later(
    small_disk, tiny, start, wait_until, workdir
):
    disk = small_disk(20)
    run = disk / "run"

    def steps() -> list[int]:
        return [fact["step"] for fact in read_facts(run / "metrics.jsonl") if fact["event"] == "step"]

    endless = ("train.steps=10000000", "train.eval_every=10000000", "train.checkpoint_every=20")
    process = start(
        "train", *tiny, *endless, "train.compile=false", f"run.dir={run}", stdout=subprocess.DEVNULL
    )
    wait_until(lambda: list(run.glob("checkpoints/step-*")) or process.poll() is not None)
    with (disk / "other").open("wb", buffering=0) as file, suppress(OSError):  # the run writes meanwhile
        while file.write(bytes(4096)):
            pass
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "no space left on device" in error or "a checkpoint needs" in error
    saved = sorted((run / "checkpoints").glob("step-*"))
    assert saved
    for path in saved:
        checkpoint.verify(path)

    (disk / "other").unlink()
    wanted = int(saved[-1].name.removeprefix("step-")) + 10
    assert main(["train", "--resume", str(run), f"train.steps={wanted}"]) == 0
    assert steps() == list(range(1, wanted + 1))


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize(
    ("megabytes", "finished"), [(3, True), (1, False)], ids=["after shards", "before any"]
)
def test_a_disk_that_fills_up_while_preparing_costs_no_finished_shard(
    small_disk, workdir, capsys, monkeypatch, megabytes, finished, deduplicate
):
    monkeypatch.setattr("pellucid.data.sources.content.BLOCK_BYTES", 100_000)
    monkeypatch.setattr(
        "pellucid.data.prepare.require_space", lambda *words, **named: None
    )  # another takes it
    lines = (json.dumps({"text": f"{number}: {'some words ' * 30}"}) + "\n" for number in range(9000))
    (workdir / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    disk = small_disk(megabytes)
    words = ["prepare", "a.jsonl", "--shard-tokens", "300000" if finished else "100000000", "--workers", "2"]
    words += ["--deduplicate"] * deduplicate
    assert main([*words, "--out", str(disk / "out")]) == 2
    said = capsys.readouterr().err
    assert "no space left on device; nothing that was there is lost" in said
    assert "Traceback" not in said
    if not finished:
        assert list(disk.iterdir()) == []
        return
    shards = sorted((disk / "out").glob("train-*.bin"))
    before = {path.name: path.stat().st_ino for path in shards}
    assert len(before) >= 2
    assert not (disk / "out/manifest.json").exists()
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    assert main([*words, "--out", str(disk / "out")]) == 0
    assert main([*words, "--out", "whole"]) == 0
    assert {name: (disk / "out" / name).stat().st_ino for name in list(before)[:-1]} == dict(
        list(before.items())[:-1]
    )
    found, wanted = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (disk / "out", workdir / "whole")
    )
    assert found == wanted


def test_a_disk_that_is_full_for_the_manifest_alone_leaves_no_half_of_it(
    small_disk, workdir, capsys, monkeypatch
):
    (workdir / "a.jsonl").write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(60)))
    disk, write = small_disk(2), prepare_module.write_manifest

    def fill_first(directory, manifest):
        with (disk / "other").open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free))
        write(directory, manifest)

    words = ["prepare", "a.jsonl", "--shard-tokens", "100"]
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_manifest", fill_first)
        assert main([*words, "--out", str(disk / "out")]) == 2
    assert "no space left on device" in capsys.readouterr().err
    assert not (disk / "out/manifest.json").exists()
    (disk / "other").unlink()
    assert main([*words, "--out", str(disk / "out")]) == 0
    assert main([*words, "--out", "whole"]) == 0
    found, wanted = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (disk / "out", workdir / "whole")
    )
    assert found == wanted
