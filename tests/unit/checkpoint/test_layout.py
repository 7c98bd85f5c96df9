"""Which checkpoint is whole, which is taken, and what is said about the others."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.checkpoint import find_checkpoint, load, newest_run, newest_valid, verify
from pellucid.checkpoint.layout import checkpoints, step_directory, step_of
from pellucid.errors import CheckpointError

LISTED = [
    "config.toml",
    "model.safetensors",
    "tokenizer/pellucid.json",
    "train_state/tensors.safetensors",
    "train_state/values.json",
]


def alter(file: Path) -> None:
    """Change one byte in the middle; the size stays."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def rewrite(manifest: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(manifest.read_text(encoding="utf-8"))
    change(content)
    manifest.write_text(json.dumps(content), encoding="utf-8")


# One checkpoint


def test_a_whole_checkpoint_passes_whatever_lies_beside(saved: Path) -> None:
    (saved / ".DS_Store").write_bytes(b"left by a file manager")
    verify(saved)


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("damage", [alter, truncate, empty])
def test_a_damaged_file_is_named(saved: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(saved / name)
    for read in (verify, load, find_checkpoint):
        with pytest.raises(CheckpointError) as raised:
            read(saved)
        assert str(raised.value).startswith(f"{saved / name}: truncated or altered")


@pytest.mark.parametrize("name", LISTED)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    for read in (verify, load, find_checkpoint):
        with pytest.raises(CheckpointError) as raised:
            read(saved)
        assert str(raised.value) == f"{saved / name}: missing from the checkpoint"


def test_a_missing_folder_is_named_by_its_file(saved: Path) -> None:
    shutil.rmtree(saved / "tokenizer")
    (saved / "tokenizer").write_text("a file now")
    with pytest.raises(CheckpointError, match=r"pellucid\.json: missing from the checkpoint"):
        verify(saved)


def test_a_folder_in_place_of_a_file_is_named(saved: Path) -> None:
    (saved / "config.toml").unlink()
    (saved / "config.toml").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.toml: cannot be read: is a directory"):
        verify(saved)


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_damaged_manifest_is_named(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved / "manifest.json")
    for read in (verify, load, find_checkpoint):
        with pytest.raises(CheckpointError) as raised:
            read(saved)
        assert str(raised.value).startswith(f"{saved / 'manifest.json'}: truncated or altered")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("sha256"),
        lambda manifest: manifest.pop("format_version"),
        lambda manifest: manifest.update(sha256=[]),
        lambda manifest: manifest.update(sha256=5),
        lambda manifest: manifest.update(sha256={}),
        lambda manifest: manifest["sha256"].pop("config.toml"),
        lambda manifest: manifest["sha256"].pop("model.safetensors"),
    ],
)
def test_an_altered_manifest_is_named(saved: Path, change: Callable[[dict], object]) -> None:
    rewrite(saved / "manifest.json", change)
    with pytest.raises(CheckpointError) as raised:
        verify(saved)
    assert str(raised.value).startswith(f"{saved / 'manifest.json'}: truncated or altered")


def test_without_a_manifest_it_is_no_checkpoint(saved: Path) -> None:
    (saved / "manifest.json").unlink()
    for read in (verify, load):
        with pytest.raises(CheckpointError, match=r"not a checkpoint: there is no manifest\.json"):
            read(saved)
    with pytest.raises(CheckpointError, match=r"neither a run .* nor a checkpoint \(no manifest\.json\)"):
        find_checkpoint(saved)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_format_version_is_said(saved: Path, version: object) -> None:
    rewrite(saved / "manifest.json", lambda manifest: manifest.update(format_version=version))
    with pytest.raises(CheckpointError) as raised:
        verify(saved)
    assert str(raised.value) == (
        f"{saved}: written in checkpoint format {version}; this version of Pellucid reads 1"
    )


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="file: not a checkpoint"):
        verify(tmp_path / "file")
    with pytest.raises(CheckpointError, match="file: neither a run"):
        find_checkpoint(tmp_path / "file")


# A run


def test_steps_and_names(tmp_path: Path) -> None:
    assert step_directory(tmp_path, 1000) == tmp_path / "checkpoints" / "step-00001000"
    assert step_of(step_directory(tmp_path, 1000)) == 1000
    assert checkpoints(tmp_path) == []
    for name in ("step-100000000", "step-00000009", "step-99999999"):  # nine digits come last
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for name in (".step-00000010.ab12.partial", "step-new", "other"):  # what a killed save left, and more
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "step-00000011").write_text("a file")
    assert [step_of(path) for path in checkpoints(tmp_path)] == [9, 99_999_999, 100_000_000]


def test_the_newest_whole_checkpoint(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, 30, 40)
    assert newest_valid(run) == (step_directory(run, 40), [])
    truncate(step_directory(run, 40) / "model.safetensors")
    (step_directory(run, 30) / "manifest.json").unlink()
    alter(step_directory(run, 10) / "config.toml")  # older than the one taken: not looked at
    newest, faults = newest_valid(run)
    assert newest == step_directory(run, 20)
    assert len(faults) == 2
    assert faults[0].startswith(f"{step_directory(run, 40) / 'model.safetensors'}: truncated or altered")
    assert faults[1].startswith(f"{step_directory(run, 30)}: not a checkpoint")


def test_no_whole_checkpoint(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10)
    alter(step_directory(run, 10) / "config.toml")
    newest, faults = newest_valid(run)
    assert newest is None
    assert len(faults) == 1
    assert newest_valid(run.parent) == (None, [])


# What a path stands for


def test_a_checkpoint_stands_for_itself(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, best="step-00000020")
    assert find_checkpoint(step_directory(run, 10)) == (step_directory(run, 10), str(step_directory(run, 10)))


def test_a_run_stands_for_its_best(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, 30, best="step-00000020\n")
    found, why = find_checkpoint(run)
    assert found == step_directory(run, 20)
    assert why == f"{found} (the run's best by validation loss)"


def test_a_damaged_best_is_passed_over_and_said(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, 30, best="step-00000020")
    damaged = step_directory(run, 20) / "model.safetensors"
    alter(damaged)
    found, why = find_checkpoint(run)
    assert found == step_directory(run, 30)
    assert why.startswith(f"{found} (the run's newest whole checkpoint; {damaged}: truncated or altered")


def test_a_fault_is_said_once(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, best="step-00000020")
    alter(step_directory(run, 20) / "model.safetensors")
    found, why = find_checkpoint(run)
    assert found == step_directory(run, 10)
    assert why.count("truncated or altered") == 1


@pytest.mark.parametrize("best", [None, "", "step-00000099", "nonsense", "../../elsewhere"])
def test_without_a_best_it_is_the_newest(save_run: Callable[..., Path], best: str | None) -> None:
    run = save_run("one", 10, 20, best=best)
    found, why = find_checkpoint(run)
    assert found == step_directory(run, 20)
    assert "the run's newest whole checkpoint" in why
    assert ("step-00000099" in why) == (best == "step-00000099")


def test_a_best_that_is_no_text_is_as_none(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10)
    (run / "best").write_bytes(b"\xff\xfe\x00")
    assert find_checkpoint(run)[0] == step_directory(run, 10)


def test_a_run_with_nothing_whole(save_run: Callable[..., Path]) -> None:
    run = save_run("one", 10, 20, best="step-00000010")
    for step in (10, 20):
        alter(step_directory(run, step) / "config.toml")
    with pytest.raises(CheckpointError) as raised:
        find_checkpoint(run)
    first, *faults = str(raised.value).splitlines()
    assert first == f"{run}: no whole checkpoint is there"
    assert sorted(faults) == [
        f"{step_directory(run, step) / 'config.toml'}: truncated or altered "
        "(its SHA-256 is not the manifest's)"
        for step in (10, 20)
    ]


def test_a_path_that_stands_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such run or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{}")  # prepared data has one too
    with pytest.raises(
        CheckpointError, match=r"data: neither a run \(no checkpoints/ in it\) nor a checkpoint"
    ):
        find_checkpoint(tmp_path / "data")


def test_nothing_stands_for_the_newest_run(save_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    older, newer = save_run("zebra", 10, 20), save_run("ant", 5)
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("x")
    for run, time in ((older, 1000), (newer, 2000)):
        for checkpoint in checkpoints(run):
            os.utime(checkpoint, (time, time))
    assert newest_run(runs) == newer
    assert find_checkpoint(None, runs=runs)[0] == step_directory(newer, 5)
    os.utime(step_directory(older, 20), (3000, 3000))
    assert find_checkpoint(None, runs=runs)[0] == step_directory(older, 20)


@pytest.mark.parametrize("there", [False, True])
def test_no_run_yet(tmp_path: Path, there: bool) -> None:
    runs = tmp_path / "runs"
    if there:
        (runs / "started" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError) as raised:
        find_checkpoint(None, runs=runs)
    assert str(raised.value) == (
        f"{runs}: no trained run is there yet; train one first: pellucid train quick"
    )
