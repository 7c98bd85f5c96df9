"""A model that was trained here on the built-in corpus writes the same text in transformers and in llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "First Citizen:\n"
NEW_TOKENS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of two hundred updates is: enough for words."""
    directory = tmp_path_factory.mktemp("exported text")
    shape = (
        "model.d_model=128",
        "model.num_heads=4",
        "data.tokenizer.kind=gpt2",
        "data.tokenizer.max_ranks=2000",
    )
    length = ("train.steps=200", "train.batch_tokens=2048", "train.eval_tokens=4096")
    pellucid(directory, "train", "quick", *shape, *length, "run.dir=run")
    return directory


@pytest.fixture(scope="module")
def ours(work: Path) -> str:
    words = ("--preset", "greedy", "--prompt", PROMPT, "--max-new-tokens", str(NEW_TOKENS), "--json")
    text = json.loads(pellucid(work, "generate", "run", *words))["text"]
    assert len(text) > 50
    return text


def pellucid(directory: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *words],
        cwd=directory, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_transformers_writes_it(work: Path, ours: str):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    receipt = json.loads(pellucid(work, "export", "run", "--to", "hf", "--out", "hf", "--json"))["receipt"]
    assert receipt["passed"] is True
    assert receipt["not_compared"] is None
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(work / "hf")
    prompt = tokenizer(PROMPT, return_tensors="pt")
    (written,) = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert tokenizer.decode(written[prompt["input_ids"].shape[1] :], skip_special_tokens=True) == ours


def test_llama_cpp_writes_it(work: Path, ours: str):
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    words = ("--to", "gguf", "--quantize", "f32", "--out", "model.gguf", "--json")
    receipt = json.loads(pellucid(work, "export", "run", *words))["receipt"]
    assert receipt["passed"] is True
    assert receipt["not_compared"] is None
    model = llama_cpp.Llama(str(work / "model.gguf"), n_ctx=256, n_threads=1, verbose=False)
    written = model(PROMPT, max_tokens=NEW_TOKENS, temperature=0.0)
    assert written["choices"][0]["text"] == ours
