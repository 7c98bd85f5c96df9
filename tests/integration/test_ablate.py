"""`pellucid ablate` from its first word to its page: interrupted, gone on with, reported without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from pellucid.cli.main import main
from pellucid.report.ablation.record import AblationRecord
from pellucid.train.run_files import METRICS, read_facts

WORDS = ("ablate", "debug", "train.steps=150", "train.eval_every=50", "train.sample_tokens=8", "--seeds", "1")
VARY = ("--vary", "model.norm.kind=rmsnorm,layernorm", "--match", "steps", "--jobs", "2", "--out", "compared")
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not to be had")
sys.meta_path.insert(0, Refuse())
from pellucid.cli.main import main
sys.exit(main(["report", "compared", "--json"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send to another process")
def test_an_ablation_is_interrupted_gone_on_with_and_reported(start, wait_until, workdir):
    process = start(*WORDS, *VARY)
    runs = workdir / "compared" / "runs"
    logs = [runs / f"{name}-s0" / METRICS for name in ("rmsnorm", "layernorm")]
    wait_until(lambda: any(log.exists() and log.read_bytes().count(b"\n") > 3 for log in logs))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    begun = [log for log in logs if log.exists() and list(read_facts(log))]
    assert begun
    assert {list(read_facts(log))[-1]["reason"] for log in begun} <= {"interrupted", "finished"}

    assert main([*WORDS, *VARY]) == 0
    assert [list(read_facts(log))[-1]["reason"] for log in logs] == ["finished", "finished"]
    starts = [fact["step"] for fact in read_facts(begun[0]) if fact["event"] == "start"]
    assert starts[0] == 0
    assert len(starts) == 2, "it went on where it was and did not begin again"

    page = workdir / "compared" / "report.html"
    before = page.read_text(encoding="utf-8")
    page.unlink()
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, encoding="utf-8", check=False, cwd=workdir
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["files"][0].endswith("report.html")
    assert page.read_text(encoding="utf-8") == before, "the runs' directories are all that the page needs"
    assert all(cell.name in before for cell in AblationRecord.read(workdir / "compared").cells)
