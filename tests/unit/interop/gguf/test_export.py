"""A checkpoint to a .gguf file and back, where llama.cpp is not installed."""

import json
import sys

import pytest
import torch

from pellucid import checkpoint
from pellucid.config import to_tree
from pellucid.errors import ConfigError, ParityError, StorageError, TokenizerError
from pellucid.interop import exchange
from pellucid.interop.receipt import Finding, Receipt
from pellucid.tokenizers import build


@pytest.fixture(autouse=True)
def _without_llama_cpp(monkeypatch):
    monkeypatch.setattr(exchange, "is_installed", lambda library: False)


@pytest.fixture
def saved(tmp_path, model_of, tokenizer):
    """`saved(family)`: a checkpoint."""

    def save(family="llama", tokenizer=tokenizer, **changes):
        model = model_of(family, **changes)
        config = {"model": to_tree(model.config)}
        directory = tmp_path / "checkpoint"
        checkpoint.save(directory, checkpoint.Contents(config, dict(model.named_parameters()), tokenizer))
        return directory

    return save


def test_out_and_back_is_the_same_model(saved, tmp_path):
    source, file = saved(), tmp_path / "exports" / "model.gguf"
    receipt = exchange.export_gguf(source, file, number_format="f32")
    assert "llama-cpp-python is not installed" in receipt.lines()[0]
    assert json.loads(file.with_name("model.gguf.parity.json").read_text())["not_compared"]
    exchange.import_model(file, tmp_path / "back")
    before, after = checkpoint.load(source), checkpoint.load(tmp_path / "back")
    state = after.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"family": "gpt2", "feed_forward": {"kind": "relu"}}, ConfigError),
        ({"tokenizer": build({"kind": "char", "alphabet": "aü"})}, TokenizerError),
    ],
    ids=["architecture", "tokenizer"],
)
def test_a_refusal_leaves_nothing(saved, tmp_path, changes, error):
    source, folder = saved(**changes), tmp_path / "exports"
    with pytest.raises(error):
        exchange.export_gguf(source, folder / "model.gguf")
    assert not list(folder.iterdir())


def test_another_model_on_the_other_side_leaves_nothing(saved, tmp_path, monkeypatch):
    failed = Receipt("llama.cpp", (Finding("logits", "differ", passed=False),))
    monkeypatch.setattr(exchange, "_in_llama_cpp", lambda *arguments: failed)
    source, folder = saved(), tmp_path / "exports"
    with pytest.raises(ParityError, match="logits: differ"):
        exchange.export_gguf(source, folder / "model.gguf")
    assert not list(folder.iterdir())


def test_a_file_in_the_way_is_kept(saved, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_text("mine")
    with pytest.raises(StorageError, match="is in the way"):
        exchange.export_gguf(saved(), file)
    assert file.read_text() == "mine"


def test_a_llama_cpp_that_does_not_load_is_said(saved, tmp_path, monkeypatch):
    """A library that was built for another machine, say."""
    monkeypatch.setattr(exchange, "is_installed", lambda library: True)
    package = tmp_path / "llama_cpp"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('libllama.so:\\n cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)  # where a real one was used before
    receipt = exchange.export_gguf(saved(), tmp_path / "model.gguf")
    assert receipt.lines() == [
        "not compared: llama-cpp-python does not work here: libllama.so: cannot open shared object file"
    ]
