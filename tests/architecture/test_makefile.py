"""The Makefile's set-up: what it says when it cannot start, what it leaves behind. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Stands where pip stands, so that no test installs gigabytes.
PIP_IS_CALLED = "PIP=echo pip install"

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="the Makefile needs make and a POSIX shell"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with the files that set-up reads, and no .venv."""
    directory = tmp_path / "a clone"
    directory.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, directory)
    return directory


def make(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call make as a user would: without the variables of a make that runs these tests."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "PYTHON", "PIPFLAGS", "TORCH_INDEX")
    return subprocess.run(
        ["make", *words],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name not in ours},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def python_with(directory: Path, module: str, code: str) -> str:
    """The PYTHON=… word for a Python that behaves as ours, but finds this module before its own."""
    path = directory / "modules"
    path.mkdir()
    (path / f"{module}.py").write_text(code)
    script = directory / "python-like-that"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return "PYTHON=./python-like-that"


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """What make printed besides its own closing line; there must be one line of it."""
    assert result.returncode != 0
    lines = [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("make")]
    assert len(lines) == 1, lines
    return lines[0]


# A machine that cannot start ---------------------------------------------------------------------------


def test_a_python_without_ensurepip_is_told_what_to_install(project: Path):
    python = python_with(project, "ensurepip", "raise ImportError")
    line = one_line(make(project, "train-quick", python))
    assert "apt install python3-venv" in line
    assert f"python3.{sys.version_info.minor}-venv" in line
    assert "uv" in line
    assert not (project / ".venv").exists()


def test_an_old_python_is_named_with_what_is_wanted(project: Path):
    python = python_with(project, "sitecustomize", "import sys; sys.version_info = (3, 9, 2, 'final', 0)")
    assert "needs Python 3.11 or newer" in one_line(make(project, "test", python))
    assert not (project / ".venv").exists()


def test_a_missing_python_is_named(project: Path):
    line = one_line(make(project, "install", "PYTHON=no-such-python"))
    assert line.startswith("no-such-python was not found")
    assert not (project / ".venv").exists()


def test_a_failed_venv_is_not_left_behind(project: Path):
    python = python_with(project, "venv", "if __name__ == '__main__': raise SystemExit('no space left')")
    assert one_line(make(project, "install", python)) == "no space left"
    assert not (project / ".venv").exists()


# A machine that can ------------------------------------------------------------------------------------


def test_set_up_happens_once_and_again_when_its_ground_changes(project: Path):
    python = f"PYTHON={sys.executable}"
    first = make(project, "install", python, PIP_IS_CALLED)
    assert first.returncode == 0, first.stderr
    assert "pip install -e ." in first.stdout
    assert not (project / ".venv/.unfinished").exists()

    assert "pip install" not in make(project, "install", python, PIP_IS_CALLED).stdout

    os.utime(project / ".venv/.installed-core", (0, 0))
    assert "pip install" in make(project, "install", python, PIP_IS_CALLED).stdout

    (project / ".venv/bin/python").unlink()
    (project / ".venv/bin/python").symlink_to("/no/longer/there")
    assert "pip install" in make(project, "install", python, PIP_IS_CALLED).stdout


def test_a_half_made_venv_is_made_anew_and_a_failed_install_goes_on(project: Path):
    python = f"PYTHON={sys.executable}"
    leftover = project / ".venv/bin/python"
    leftover.parent.mkdir(parents=True)
    leftover.symlink_to(sys.executable)
    (project / ".venv/.unfinished").touch()

    offline = make(project, "install", python, "PIP=false")
    assert offline.returncode != 0
    assert (project / ".venv/pyvenv.cfg").exists(), "the half-made .venv was kept"
    assert not (project / ".venv/.installed-core").exists()

    made = (project / ".venv/pyvenv.cfg").stat().st_mtime_ns
    assert make(project, "install", python, PIP_IS_CALLED).returncode == 0
    assert (project / ".venv/pyvenv.cfg").stat().st_mtime_ns == made, "a whole .venv was made again"


def test_only_torch_comes_from_the_torch_index(project: Path):
    plan = make(project, "-n", "install", "TORCH_INDEX=file:///wheels").stdout
    assert plan.count("file:///wheels") == plan.count('--no-deps --index-url "file:///wheels" torch &&') + 1
    assert "file:///wheels" not in make(project, "-n", "install").stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train-quick", ".venv/bin/pellucid train quick train.seed=1"),
        ("train", ".venv/bin/pellucid train sota-125m train.seed=1"),
        ("generate", ".venv/bin/pellucid generate train.seed=1"),
    ],
)
def test_a_target_is_one_command_with_its_further_words(project: Path, target: str, command: str):
    assert make(project, "-n", target, "ARGS=train.seed=1").stdout.splitlines()[-1] == command


def test_the_whole_suite_contains_the_default_one(project: Path):
    assert '-m "not slow"' in make(project, "-n", "test").stdout
    plan = make(project, "-n", "test-all").stdout
    assert plan.index('-m "not slow"') < plan.index("-m slow")


def test_help_is_the_default_and_lists_every_target(project: Path):
    listed = {line.split()[1] for line in make(project).stdout.splitlines()}
    phony = next(
        line for line in (project / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")
    )
    assert listed == set(phony.split()[1:])


def test_clean_keeps_what_the_user_made(project: Path):
    kept = ["runs/quick/config.toml", "data/own.txt", ".venv/bin/python", "src/own.py"]
    gone = [
        ".ruff_cache/x",
        "htmlcov/index.html",
        "src/__pycache__/own.pyc",
        "tests/__pycache__/x",
        "benchmarks/__pycache__/x",
    ]
    for name in kept + gone:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()

    assert make(project, "clean").returncode == 0

    assert [name for name in kept + gone if (project / name).exists()] == kept


# CI ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fails_at", "status", "calls"), [("", 0, "check test-all"), ("check", 3, "check")])
def test_ci_runs_both_and_passes_the_status_on(tmp_path: Path, fails_at: str, status: int, calls: str):
    fake = tmp_path / "make"
    fake.write_text(f'#!/bin/sh\necho "$1" >> "{tmp_path}/calls"\n[ "$1" != "{fails_at}" ] || exit 3\n')
    fake.chmod(0o755)

    result = subprocess.run(
        ["bash", ROOT / ".ci/run"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CI": "true"},
        stdin=subprocess.DEVNULL,
        check=False,
    )

    assert result.returncode == status
    assert (tmp_path / "calls").read_text().split() == calls.split()
    assert os.access(ROOT / ".ci/run", os.X_OK)
