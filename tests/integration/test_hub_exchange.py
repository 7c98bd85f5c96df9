"""A trained model goes to a hub and comes back, by commands that run as processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from tests.integration.model_hub import TOKEN, ModelHub

from pellucid import checkpoint

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("hf_xet", reason="needs hf_xet")
pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[ModelHub]:
    with ModelHub() as running:
        yield running


@pytest.fixture
def run(pellucid: Run, server: ModelHub, workdir: Path) -> Run:
    """Run a command that is logged in to the hub, and never says its token."""

    def done(*words: object, **changes: str) -> CompletedProcess[str]:
        result = pellucid(*words, env={**os.environ, **server.environment(workdir / "home"), **changes})
        assert TOKEN not in result.stdout + result.stderr
        return result

    return done


def test_export_push_import_gives_the_same_weights(run: Run, server: ModelHub, run_directory: Path):
    assert run("export", run_directory, "--out", "mine").returncode == 0
    pushed = run("push", "mine", "me/mine", "--private")
    assert pushed.returncode == 0, pushed.stderr
    repository = server.repositories["me/mine"]
    assert repository.private
    first, *_, last = pushed.stderr.splitlines()
    assert first.startswith("to me/mine: 7 files, 0.")
    assert (
        "README.md, config.json, generation_config.json, model.safetensors, parity.json, tokenizer" in first
    )
    assert last.startswith(f"pushed: {server.endpoint}/me/mine/commit/{repository.head}; back again: ")

    imported = run("import", f"me/mine@{repository.head}", "--out", "back")
    assert imported.returncode == 0, imported.stderr
    assert f"me/mine@{repository.head}: commit {repository.head}" in imported.stderr
    best, _ = checkpoint.find_checkpoint(run_directory)
    before, after = (checkpoint.load(path).model.state_dict() for path in (best, Path("back")))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_a_hub_refuses_is_one_line_and_writes_nothing(run: Run, server: ModelHub, run_directory: Path):
    assert run("export", run_directory, "--out", "mine").returncode == 0
    refused = run("--debug", "push", "mine", "others/mine")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: others/mine: the hub refuses it (status 403")
    gone = run("import", "me/gone@v1", "--out", "back")
    assert gone.returncode == 2
    assert gone.stderr.startswith("error: me/gone@v1: the hub knows no such repository (status 401)")
    assert len(gone.stderr.splitlines()) == 1
    pushed = run("push", "mine", "me/mine", HF_HUB_DISABLE_XET="0")  # to a hub that has no such storage
    assert pushed.returncode == 2
    assert "error: me/mine: the transfer broke off (" in pushed.stderr
    assert set(server.repositories["me/mine"].files) == {".gitattributes"}
    server.__exit__()
    for words in (("push", "mine", "me/mine"), ("import", "me/mine", "--out", "back")):
        silent = run(*words)
        assert silent.returncode == 2
        assert "error: me/mine: no answer from 127.0.0.1:" in silent.stderr
    assert not Path("back").exists()
