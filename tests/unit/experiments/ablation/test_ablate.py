"""Ablations that really run: processes, files, what is kept, what fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.errors import ConfigError
from pellucid.evaluate.record import Evaluation
from pellucid.experiments.ablation import ablate, plan_ablation
from pellucid.experiments.ablation.running import is_finished
from pellucid.report.ablation.record import FAILED, AblationRecord
from pellucid.runtime.device import choose_device
from pellucid.train.run_files import METRICS, read_facts

SHORT = ["train.steps=4", "train.eval_every=4", "train.checkpoint_every=4", "train.sample_tokens=0"]
NORMS = {"model.norm.kind": ("rmsnorm", "layernorm")}


def plan(vary: dict[str, tuple[str, ...]] = NORMS, *words: str, seeds: int = 1) -> AblationRecord:
    return plan_ablation(
        "debug", [*SHORT, *words], vary, seeds=seeds, match="steps", device=choose_device("cpu")
    )


def test_runs_are_run_directories_that_are_kept_and_more_seeds_add_to_them(tmp_path: Path):
    end = ablate(plan(), tmp_path, jobs=2)
    assert (end.done, end.total, end.failed, end.running) == (2, 2, (), ())
    first = AblationRecord.read(tmp_path)
    assert [cell.name for cell in first.cells] == ["rmsnorm", "layernorm"]
    runs = [first.run_directory(tmp_path, cell, 0) for cell in first.cells]
    for cell, run in zip(first.cells, runs, strict=True):
        last = [fact for fact in read_facts(run / METRICS) if fact["event"] == "evaluation"][-1]
        found = Evaluation.read(run / "evaluations" / "val.json").texts[0]
        assert found.tokens > last["val_tokens"]  # the whole split; the run itself looked at its beginning
        assert found.loss == pytest.approx(last["val_loss"], abs=0.1)
        assert f'kind = "{cell.name}"' in (run / "config.toml").read_text()

    before = [(run / METRICS).stat().st_mtime_ns for run in runs]
    assert ablate(plan(), tmp_path).done == 2
    seen: list[tuple[str, ...]] = []
    end = ablate(plan(seeds=2), tmp_path, jobs=2, progress=lambda now: seen.append(now.running))
    assert (end.done, end.total) == (4, 4)
    assert [(run / METRICS).stat().st_mtime_ns for run in runs] == before
    assert {word.split()[0] for running in seen for word in running} == {"rmsnorm-s1", "layernorm-s1"}
    assert AblationRecord.read(tmp_path).seeds == (0, 1)
    assert AblationRecord.read(tmp_path).created == first.created


def test_another_ablation_does_not_go_into_the_same_directory(tmp_path: Path):
    plan().write(tmp_path)
    with pytest.raises(ConfigError, match=r"holds another ablation.*\n.*relu2"):
        ablate(plan({"model.feed_forward.kind": ("swiglu", "relu2")}), tmp_path)
    with pytest.raises(ConfigError, match=r"overrides: .*train.lr=2e-3"):
        ablate(plan(NORMS, "train.lr=2e-3"), tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_is_noted_and_stops_no_other(tmp_path: Path):
    """A rate at which nothing can be learned: the guard gives up, with its reason."""
    vary = {"train.lr": ("1e30", "1e-3")}
    end = ablate(plan(vary, "train.guard.max_skips=1", "train.guard.max_rollbacks=0"), tmp_path)
    assert end.failed == ("lr-1e30-s0",)
    assert end.done == end.total == 2
    assert "exit status 1" in (tmp_path / "runs" / "lr-1e30-s0" / FAILED).read_text()
    assert is_finished(tmp_path / "runs" / "lr-1e-3-s0")
