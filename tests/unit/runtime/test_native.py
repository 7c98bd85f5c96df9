import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.runtime import native
from pellucid.runtime.native import build

ADD = 'extern "C" int add(int a, int b) { return a + b; }\n'

needs_compiler = pytest.mark.skipif(native.find_compiler() is None, reason="no C++ compiler here")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(native.VARIABLE, raising=False)
    path = tmp_path / "sum.cpp"
    path.write_text(ADD)
    build.cache_clear()
    yield path
    build.cache_clear()


@needs_compiler
def test_a_library_is_built_once_and_called(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(source)
    assert built.library is not None
    assert built.library.add(2, 3) == 5
    (file,) = (source.parent / "cache" / "native").iterdir()
    build.cache_clear()
    ran: list[list[str]] = []
    run = native._run
    monkeypatch.setattr(native, "_run", lambda command: ran.append(command) or run(command))
    assert build(source).library is not None
    assert [command[1:] for command in ran] == [["--version"]]
    assert file.is_file()


@needs_compiler
def test_another_source_is_another_library(source: Path) -> None:
    build(source)
    source.write_text(ADD.replace("a + b", "a - b"))
    build.cache_clear()
    library = build(source).library
    assert library is not None
    assert library.add(2, 3) == -1


@needs_compiler
def test_a_source_that_does_not_compile_is_a_reason(source: Path) -> None:
    source.write_text("int f( {")
    built = build(source)
    assert built.library is None
    assert "cannot build it" in built.reason
    assert "error" in built.reason


def test_without_a_compiler_there_is_a_reason(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build(source) == native.Built(None, "no C++ compiler found (c++, g++ or clang++)")


def test_a_compiler_that_is_none_is_a_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho broken: fatal error >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    built = build(source)
    assert built.library is None
    assert "fatal error" in built.reason


def test_it_can_be_turned_off(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "0")
    assert build(source) == native.Built(None, "PELLUCID_NATIVE is 0")


def test_turned_off_a_model_writes_the_same_text() -> None:
    script = """if True:
        import torch
        from pellucid import DecoderConfig
        from pellucid.model import native
        from pellucid.model.packed import pack
        model = DecoderConfig(vocab_size=64, d_model=64, num_heads=4, num_layers=2, max_seq_len=64).build(seed=3).eval()
        for parameter in model.parameters(): parameter.data.mul_(3)
        pack(model, "fp32")
        print(native.is_available(), model.generate(torch.tensor([1, 2, 3]), 20).tolist())
    """
    outputs = []
    for value in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, native.VARIABLE: value},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout.split(" ", 1))
    assert outputs[0][0] == "False"
    assert outputs[0][1] == outputs[1][1]
