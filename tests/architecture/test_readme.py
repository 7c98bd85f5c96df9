"""The README's words are true: its commands and code run, in its order, in one directory."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pellucid.cli.main import main
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.experiments.doctor import NEVER_RUN
from pellucid.model.stats import count_parameters, on_meta
from pellucid.presets import RUNS, run_preset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
PYTHON = [text for language, text in BLOCKS if language == "python"]


def test_readme_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for line in COMMANDS if line.startswith("pellucid ")]
    assert len(commands) >= 8
    for line in commands:
        status = main(shlex.split(line, comments=True)[1:])
        assert status == 0, f"{line}\n{capsys.readouterr().err}"


def test_readme_says_what_has_never_been_run() -> None:
    """In the words of `pellucid doctor`."""
    for words in NEVER_RUN:
        assert f"- {words}." in README


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))
    assert {"train-quick", "test", "install", "generate"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"README names make {target}"


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for text in PYTHON:
        exec(compile(text, "README.md", "exec"), namespace)
    assert tuple(namespace["logits"].shape) == (1, 16, 50257)  # type: ignore[attr-defined]
    assert tuple(namespace["longer"].shape) == (1, 116)  # type: ignore[attr-defined]
    assert tuple(namespace["scores"].shape) == (1, 7, 50257)  # type: ignore[attr-defined]
    assert tuple(namespace["answer"].shape) == (1, 5)  # type: ignore[attr-defined]
    assert namespace["result"].end.reason == "finished"  # type: ignore[attr-defined]


def test_readme_states_the_presets_true_sizes() -> None:
    stated = dict(re.findall(r"^\| `([\w-]+)` \| ([\d.]+)M \|", README, re.MULTILINE))
    assert stated.keys() == RUNS.keys()
    for name, millions in stated.items():
        run = run_preset(name)
        config = run.model
        if config.vocab_size is None:
            tokenizer = run.data.tokenizer.build(lambda: texts(BuiltinSource("shakespeare")))
            config = config.model_copy(update={"vocab_size": tokenizer.vocab_size})
        assert f"{count_parameters(on_meta(config)).total / 1e6:.1f}" == millions, name
