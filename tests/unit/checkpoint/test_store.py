"""What a saved checkpoint holds, that it is loaded as it was, and what a save that fails leaves."""

import hashlib
import json
import shutil
import subprocess
import tomllib
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pellucid.checkpoint import Contents, load, load_config, load_train_state, save, store, verify, weights
from pellucid.config import to_tree
from pellucid.errors import CheckpointError, StorageError
from pellucid.model import DecoderConfig, DecoderLM

FILES = [
    "config.toml",
    "manifest.json",
    "model.safetensors",
    "tokenizer/pellucid.json",
    "tokenizer/tokenizer.json",
    "train_state/tensors.safetensors",
    "train_state/values.json",
]


def files(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 64 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no mount here")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_is_readable_without_us(saved: Path, contents: Contents) -> None:
    assert files(saved) == FILES
    assert tomllib.loads((saved / "config.toml").read_text(encoding="utf-8")) == contents.config
    weights = load_file(saved / "model.safetensors")
    assert set(weights) == set(contents.model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in contents.model.items())
    assert json.loads((saved / "train_state" / "values.json").read_text()) == contents.train_values


def test_the_manifest_has_the_hash_of_every_other_file(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format_version"] == 1
    assert sorted([*manifest["sha256"], "manifest.json"]) == FILES
    for name, expected in manifest["sha256"].items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == expected


def test_what_is_loaded_is_what_was_saved(saved: Path, contents: Contents, model: DecoderLM) -> None:
    loaded = load(saved)
    assert loaded.path == saved
    assert loaded.config == load_config(saved) == contents.config
    assert isinstance(loaded.model, DecoderLM)
    assert not loaded.model.training
    assert loaded.model.config == model.config
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, contents.model[name]), name
        assert parameter.requires_grad
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids), model.eval()(ids))
    text = "Ünïcode<pad>"
    assert loaded.tokenizer.fingerprint == contents.tokenizer.fingerprint
    expected = contents.tokenizer.encode(text, allow_special=True)
    assert np.array_equal(loaded.tokenizer.encode(text, allow_special=True), expected)


def test_the_training_state_is_as_it_was(saved: Path, contents: Contents) -> None:
    model_tensors, tensors, values, _ = load_train_state(saved)
    assert values == contents.train_values  # 1/3 and None too
    for found, expected in ((model_tensors, contents.model), (tensors, contents.train_tensors)):
        assert set(found) == set(expected)
        for name, tensor in found.items():
            assert torch.equal(tensor, expected[name]), name
            assert tensor.dtype == expected[name].dtype


def test_weights_alone_are_a_checkpoint_that_cannot_be_resumed(tmp_path: Path, contents: Contents) -> None:
    save(tmp_path / "w", Contents(config=contents.config, model=contents.model))
    assert files(tmp_path / "w") == ["config.toml", "manifest.json", "model.safetensors"]
    verify(tmp_path / "w")
    with pytest.raises(CheckpointError, match="holds weights only; start from it with --init"):
        load_train_state(tmp_path / "w")
    with pytest.raises(CheckpointError, match="has no tokenizer/"):
        load(tmp_path / "w")


def test_training_tensors_are_kept_where_there_are_no_values(tmp_path: Path, contents: Contents) -> None:
    save(tmp_path / "c", replace(contents, train_values={}))
    stored = load_train_state(tmp_path / "c")
    assert set(stored.tensors) == set(contents.train_tensors)
    assert stored.values == {}


def test_tensors_that_are_not_contiguous_are_saved_by_value(tmp_path: Path, contents: Contents) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    save(tmp_path / "c", replace(contents, train_tensors={"turned": turned}))
    assert torch.equal(load_train_state(tmp_path / "c")[1]["turned"], turned)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, contents: Contents) -> None:
    smaller = DecoderConfig(vocab_size=100, d_model=8, num_layers=1, num_heads=2).build()
    config = {"model": to_tree(smaller.config)}
    save(tmp_path / "c", replace(contents, config=config, model=dict(smaller.named_parameters())))
    with pytest.raises(CheckpointError, match="its tokenizer has 258 ids and its model only 100"):
        load(tmp_path / "c")


# Saves that fail


def test_a_disk_without_the_space_is_said_before_anything_is_written(
    tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(StorageError, match=r"a checkpoint needs [\d.]+ MB and the disk has 0\.0 MB free"):
        save(tmp_path / "c", contents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [28, 122])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    number: int, tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half of it")
        raise SafetensorError(f"Error while serializing: I/O error: refused (os error {number})")

    monkeypatch.setattr(weights, "save_file", refuse)
    with pytest.raises(StorageError, match=rf"c: cannot be written: .*os error {number}"):
        save(tmp_path / "c", contents)
    assert list(tmp_path.iterdir()) == []


def test_a_real_full_disk_leaves_nothing(
    tiny_disk: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"a checkpoint needs .* MB and the disk has 0\.1 MB free"):
        save(tiny_disk / "c", contents)
    large = replace(contents, train_tensors={"a": torch.zeros(10_000)})
    monkeypatch.setattr(store, "require_space", lambda *_, **__: None)  # as if it was taken after the check
    with pytest.raises(StorageError, match=r"c: cannot be written: .*No space left on device"):
        save(tiny_disk / "c", large)
    assert list(tiny_disk.iterdir()) == []
    assert shutil.disk_usage(tiny_disk).free == 64 << 10


def test_values_that_json_cannot_say_leave_nothing(tmp_path: Path, contents: Contents) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        save(tmp_path / "c", replace(contents, train_values={"best_loss": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_a_whole_checkpoint_is_never_overwritten(saved: Path, contents: Contents) -> None:
    before = {name: (saved / name).read_bytes() for name in files(saved)}
    with pytest.raises(StorageError, match="step-00000020: is in the way"):
        save(saved, replace(contents, train_values={"step": 21}))
    assert {name: (saved / name).read_bytes() for name in files(saved)} == before


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(saved: Path, contents: Contents) -> None:
    """What a run that resumed from an older checkpoint meets when it comes to that step again."""
    (saved / "model.safetensors").write_bytes(b"half")
    save(saved, contents)
    verify(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_directory_that_is_no_checkpoint_of_a_run_is_never_removed(
    tmp_path: Path, contents: Contents
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="home: is in the way"):
        save(tmp_path / "home", contents)
    assert files(tmp_path) == ["home/thesis.txt"]
