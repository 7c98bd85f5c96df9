"""The import line of docs/decisions/0001-import-line.md, kept by the contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter is not installed: pip install -e '.[test]'")

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Lint the package that lies in this directory, or that is installed, by its pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_points_downwards():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("errors.py", "from pellucid.config import Config", "pellucid.errors is not allowed to import"),
        (
            "optim/planted.py",
            "import pellucid.model",
            "pellucid.optim is not allowed to import pellucid.model",
        ),
        ("model/planted.py", "import pellucid.tokenizers", "Models and optimizers know no text BROKEN"),
        ("tokenizers/planted.py", "import torch", "without torch BROKEN"),
        ("data/planted.py", "import pellucid.runtime.device", "without torch BROKEN"),
        ("planted/__init__.py", "", "- pellucid.planted"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, file: str, line: str, complaint: str):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "pellucid"
    shutil.copytree(ROOT / "src/pellucid", package, ignore=shutil.ignore_patterns("__pycache__"))
    planted = package / file
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a", encoding="utf-8") as text:
        text.write(f"\n{line}\n")

    result = lint(tmp_path)

    assert result.returncode == 1
    assert complaint in " ".join(result.stdout.split())
