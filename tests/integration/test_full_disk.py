"""A disk that is really full: a small file system in memory, where this user may mount one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import checkpoint
from pellucid.cli.main import main
from pellucid.errors import StorageError
from pellucid.train.facts import Request
from pellucid.train.hooks import Hook
from pellucid.train.hooks.metrics import read_facts


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
