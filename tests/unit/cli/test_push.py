"""`pellucid push`, and `pellucid import` from a hub: what they say and when they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.model_hub import ModelHub

# The client's own way to upload without hf-xet, which wants a server of another kind.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> Iterator[ModelHub]:
    with ModelHub() as running:
        running.log_in(monkeypatch, workdir / "home")
        yield running


@pytest.fixture
def exported(cli, run_directory: Path) -> Path:
    assert cli("export", run_directory, "--out", "mine").status == 0
    return Path("mine")


def test_it_says_what_goes_and_what_stays_before_it_asks_the_hub(cli, server: ModelHub, exported: Path):
    (exported / "notes.txt").write_text("mine alone", encoding="utf-8")
    outcome = cli("push", exported, "others/mine")
    assert outcome.error.startswith("error: others/mine: the hub refuses it (status 403")
    first, second, *_ = outcome.err.splitlines()
    assert first.startswith("to others/mine: 7 files, 0.")
    assert "model.safetensors" in first
    assert second == "left here: notes.txt"


def test_there_and_back_as_json(cli, server: ModelHub, exported: Path):
    pushed = cli("push", exported, "me/mine", "--json").json
    head = server.repositories["me/mine"].head
    assert pushed["commit"] == f"{server.endpoint}/me/mine/commit/{head}"
    assert "model.safetensors" in pushed["files"]
    imported = cli("import", "me/mine", "--out", "back", "--json")
    assert imported.json["receipt"]["passed"]
    assert f"me/mine: commit {head}" in imported.err


def test_an_unproven_model_needs_the_word(cli, server: ModelHub, exported: Path):
    receipt = json.loads((exported / "parity.json").read_bytes())
    (exported / "parity.json").write_text(json.dumps({**receipt, "passed": False}))
    assert "mine: its parity.json has not passed" in cli("push", exported, "me/mine").error
    assert server.requests == []
    assert cli("push", exported, "me/mine", "--unproven").status == 0


def test_a_repository_that_is_not_there(cli, server: ModelHub):
    error = cli("import", "me/gone", "--out", "back").error
    assert error.startswith("error: me/gone: the hub knows no such repository (status 401)")
    assert not Path("back").exists()
