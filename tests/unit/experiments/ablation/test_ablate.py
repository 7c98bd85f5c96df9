"""Ablations that really run: processes, files, what is kept, what fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from pellucid.config import to_toml
from pellucid.errors import ConfigError
from pellucid.evaluate.record import Evaluation
from pellucid.experiments.ablation import ablate, plan_ablation
from pellucid.experiments.ablation.ablate import merged
from pellucid.experiments.ablation.planning import cell_config
from pellucid.experiments.ablation.running import Children, is_finished, run_one
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
    assert (end.ended, end.total, end.failed, end.running) == (2, 2, (), ())
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
    assert ablate(plan(), tmp_path).ended == 2
    seen: list[tuple[str, ...]] = []
    end = ablate(plan(seeds=2), tmp_path, jobs=2, progress=lambda now: seen.append(now.running))
    assert (end.ended, end.total) == (4, 4)
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


def test_a_preset_file_that_has_changed_is_another_ablation(tmp_path: Path):
    file = tmp_path / "mine.toml"
    text = '[train]\nsteps = 4\nlr = 1e-3\n[model]\nkind = "decoder"\nd_model = 16\nnum_heads = 2\nnum_layers = 1\n'
    file.write_text(text)
    record = plan_ablation(str(file), [], NORMS, seeds=1, match="steps", device=choose_device("cpu"))
    record.write(tmp_path)
    (tmp_path / "configs").mkdir()
    for cell in record.cells:
        (tmp_path / "configs" / f"{cell.name}.toml").write_text(to_toml(cell_config(record, cell)))
    assert merged(record, tmp_path).cells == record.cells
    file.write_text(text.replace("1e-3", "0.5"))
    with pytest.raises(ConfigError, match=r"rmsnorm: train.lr: 0.001 → 0.5"):
        merged(record, tmp_path)


def test_two_processes_do_not_run_one_ablation(tmp_path: Path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match="another process runs this ablation"):
        ablate(plan(), tmp_path)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path):
    record = plan(NORMS)
    run = record.run_directory(tmp_path, record.cells[0], 0)
    run.mkdir(parents=True)
    (run / "config.toml").write_text("mine")
    log, config = tmp_path / "log.txt", tmp_path / "none.toml"
    with FileLock(run / ".lock"), Children(1) as children:
        run_one(children, run, config, 0, log, None)
    assert "another process is training this run" in (run / FAILED).read_text()
    assert (run / "config.toml").read_text() == "mine"


def test_a_trained_run_without_checkpoints_is_a_failure_of_its_own(tmp_path: Path):
    run = tmp_path / "runs" / "x-s0"
    run.mkdir(parents=True)
    (run / METRICS).write_text('{"event": "end", "step": 4, "reason": "finished"}\n')
    with Children(1) as children:
        run_one(children, run, tmp_path / "none.toml", 0, tmp_path / "log.txt", None)
    assert "its checkpoints are gone" in (run / FAILED).read_text()


def test_a_run_that_fails_is_noted_and_stops_no_other(tmp_path: Path):
    """A rate at which nothing can be learned: the guard gives up, with its reason."""
    vary = {"train.lr": ("1e30", "1e-3")}
    end = ablate(plan(vary, "train.guard.max_skips=1", "train.guard.max_rollbacks=0"), tmp_path)
    assert end.failed == ("lr-1e30-s0",)
    assert end.ended == end.total == 2
    assert "exit status 1" in (tmp_path / "runs" / "lr-1e30-s0" / FAILED).read_text()
    assert is_finished(tmp_path / "runs" / "lr-1e-3-s0")
