"""Reports are built from files alone, where torch cannot even be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.report.ablations import one_key
from tests.unit.report.run_directories import make_run

HOOK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "matplotlib"):
            raise ImportError(f"{name} may not be imported here")

sys.meta_path.insert(0, Refuse())
"""


def without_torch(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HOOK + code],
        cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip


def test_the_hook_refuses_torch(tmp_path):
    assert "torch may not be imported here" in without_torch("import torch", tmp_path).stderr


@pytest.mark.parametrize("words", [["r"], ["r", "s"], ["abl"]], ids=["a run", "runs", "an ablation"])
def test_a_report_is_written_without_torch(tmp_path, words):
    make_run(tmp_path / "r")
    make_run(tmp_path / "s")
    one_key(tmp_path / "abl")
    code = (
        f"from pellucid.cli.main import main; assert main(['report', *{words!r}, '--out', 'page.html']) == 0"
    )
    result = without_torch(code, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "page.html").stat().st_size > 10_000
