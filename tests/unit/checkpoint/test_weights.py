"""Weights alone: their formats, what does not fit, and that no pickle is ever loaded."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.checkpoint import load, load_weights, save_weights
from pellucid.errors import CheckpointError, StorageError
from pellucid.model import DecoderLM
from pellucid.runtime.files import sha256_file


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.fixture
def other(model: DecoderLM) -> DecoderLM:
    """The same architecture with other weights."""
    return model.config.build(seed=2)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_round_trip(
    model: DecoderLM, other: DecoderLM, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    save_weights(model, tmp_path / "w.safetensors", dtype=name)
    stored = load_file(tmp_path / "w.safetensors")
    assert sorted(stored) == sorted(state(model))
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    load_weights(other, tmp_path / "w.safetensors")
    for key, parameter in other.named_parameters():
        assert torch.equal(parameter, state(model)[key].to(dtype).float()), key
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad


def test_the_default_is_exact_and_takes_text_paths(
    model: DecoderLM, other: DecoderLM, tmp_path: Path
) -> None:
    save_weights(model, str(tmp_path / "w.safetensors"))
    load_weights(other, str(tmp_path / "w.safetensors"))
    assert_unchanged(other, state(model))


def test_a_narrow_model_is_filled_in_its_own_format(
    model: DecoderLM, other: DecoderLM, tmp_path: Path
) -> None:
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other.to(torch.bfloat16), tmp_path / "w.safetensors")
    assert {parameter.dtype for parameter in other.parameters()} == {torch.bfloat16}
    assert torch.equal(other.embedding.table, model.embedding.table.bfloat16())


def test_saving_changes_nothing(model: DecoderLM, tmp_path: Path) -> None:
    before = state(model)
    save_weights(model, tmp_path / "w.safetensors", dtype="bf16")
    assert_unchanged(model, before)


def test_a_file_in_the_way_of_a_folder(model: DecoderLM, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file: is in the way"):
        save_weights(model, tmp_path / "file" / "w.safetensors")


def test_every_misfit_is_listed_and_the_model_is_unchanged(model: DecoderLM, tmp_path: Path) -> None:
    before = state(model)
    file = tmp_path / "w.safetensors"
    tensors = {name: tensor + 1 for name, tensor in before.items()}
    tensors["final_norm.gain"] = torch.ones(9)
    tensors["output.weight"] = tensors.pop("embedding.table")
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, file)
    assert str(raised.value) == (
        f"{file}: does not fit the model: missing: embedding.table; not in the model: output.weight; "
        "final_norm.gain: the file has shape [9], the model [8]"
    )
    assert_unchanged(model, before)


def test_many_misfits_are_counted(model: DecoderLM, tmp_path: Path) -> None:
    before = state(model)
    save_file({"x": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=rf"missing: .*; and {len(before) + 1 - 5} more$"):
        load_weights(model, tmp_path / "w.safetensors")
    assert_unchanged(model, before)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_truncated_file(model: DecoderLM, other: DecoderLM, tmp_path: Path, part: float) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(model, file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    before = state(other)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: truncated or not a safetensors file"):
        load_weights(other, file)
    assert_unchanged(other, before)


def test_a_file_that_is_not_there(model: DecoderLM, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w\.safetensors: no such file"):
        load_weights(model, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(model, tmp_path)


class Bomb:
    """What an attacker would put into a pickle: loading it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_never_loaded(saved: Path, model: DecoderLM, tmp_path: Path) -> None:
    """A .pt file in place of the weights, with the hash in the manifest made to fit."""
    struck = tmp_path / "struck"
    torch.save({**state(model), "x": Bomb(struck)}, saved / "model.safetensors")
    manifest = saved / "manifest.json"
    content = json.loads(manifest.read_text())
    content["sha256"]["model.safetensors"] = sha256_file(saved / "model.safetensors")
    manifest.write_text(json.dumps(content))
    before = state(model)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or not a safetensors file"):
        load(saved)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_weights(model, saved / "model.safetensors")
    assert_unchanged(model, before)
    assert not struck.exists()
    pickle.loads(pickle.dumps(Bomb(struck)))  # the bomb is a real one
    assert struck.exists()
