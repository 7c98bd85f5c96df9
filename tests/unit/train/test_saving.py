"""Checkpoints in the background: the same bytes, of the moment of the call, one at a time, and no failure lost."""

import io
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.checkpoint import Contents
from pellucid.config import to_tree
from pellucid.errors import StorageError
from pellucid.model import DecoderConfig
from pellucid.tokenizers import ByteTokenizer
from pellucid.train import saving
from pellucid.train.facts import EndFacts, RollbackFacts, StepFacts
from pellucid.train.rundir import RunDirectory
from pellucid.train.saving import Saver

CONFIG = DecoderConfig(vocab_size=258, d_model=8, num_layers=1, num_heads=2, max_seq_len=12)
STEP = StepFacts(1, 1.0, 0.1, 1.0, 8, 0.5, 1.0, 1.0, 0.0)
END = EndFacts(2, "finished", 2.2, 16, 0.3, 1)


@pytest.fixture
def contents() -> Contents:
    model = CONFIG.build(seed=1)
    return Contents(
        config={"model": to_tree(CONFIG)},
        model=dict(model.named_parameters()),
        tokenizer=ByteTokenizer(["<pad>"]),
        averaged={name: p.detach() / 2 for name, p in model.named_parameters()},
        train_tensors={"exp_avg.final_norm.gain": torch.arange(8.0)},
        train_values={"step": 20},
    )


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def saver(run) -> Saver:
    return Saver(run, 2, Console(file=io.StringIO(), width=1000))


@pytest.fixture
def gate(monkeypatch):
    """Saves wait for it to be opened; it knows when they began and ended."""
    opened, log, save = threading.Event(), [], checkpoint.save

    def gated(path, contents):
        log.append(("begin", path.name))
        assert opened.wait(60)
        save(path, contents)
        log.append(("end", path.name))

    monkeypatch.setattr(saving.checkpoint, "save", gated)
    yield SimpleNamespace(open=opened.set, log=log)
    opened.set()


def left(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def file_in_the_way(run: RunDirectory, step: int) -> None:
    """What only the writing itself finds."""
    (run.path / f"checkpoints/step-{step:08}").write_text("a file")


# What is written -------------------------------------------------------------------------------------


def test_the_bytes_are_those_of_a_save_in_the_foreground(saver, run, contents, tmp_path):
    saver.save(contents, step=1, best_step=None)
    saver.wait()
    checkpoint.save(tmp_path / "foreground", contents)
    found, wanted = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (run.path / "checkpoints/step-00000001", tmp_path / "foreground")
    )
    assert found == wanted
    assert len(found) == 8


def test_training_goes_on_while_the_moment_of_the_call_is_written(saver, run, contents, gate):
    before = contents.snapshot()
    saver.save(contents, step=1, best_step=None)
    assert left(run) == []
    with torch.no_grad():
        for tensors in (contents.model, contents.averaged, contents.train_tensors):
            for tensor in tensors.values():
                tensor.add_(1)
    gate.open()
    saver.wait()
    stored = checkpoint.load_train_state(run.path / "checkpoints/step-00000001")
    for name in ("model", "averaged"):
        wanted = getattr(before, name)
        assert getattr(stored, name).keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in getattr(stored, name).items())
    assert torch.equal(stored.tensors["exp_avg.final_norm.gain"], torch.arange(8.0))


def test_a_save_waits_for_the_one_before(saver, contents, gate):
    saver.save(contents, step=1, best_step=None)
    threading.Timer(0.05, gate.open).start()
    saver.save(contents, step=2, best_step=None)
    saver.wait()
    first, second = "step-00000001", "step-00000002"
    assert gate.log == [("begin", first), ("end", first), ("begin", second), ("end", second)]


def test_marks_and_pruning_follow_a_save(saver, run, contents):
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 5)):
        saver.save(contents, step=step, best_step=best)
        saver.wait()
        assert (run.path / "latest").read_text() == f"step-{step:08}\n"
        assert (run.path / "best").read_text() == f"step-{best:08}\n"
        if step == 4:
            assert left(run) == ["step-00000001", "step-00000003", "step-00000004"]
    assert left(run) == ["step-00000004", "step-00000005"]


def test_nothing_is_marked_before_it_is_there(saver, run, contents, gate):
    saver.save(contents, step=1, best_step=1)
    assert not (run.path / "latest").exists()
    assert not (run.path / "best").exists()
    gate.open()
    saver.wait()
    assert (run.path / "best").exists()


def test_a_step_that_is_saved_already_is_only_marked(run, contents):
    saver = Saver(run, 2, Console(file=io.StringIO()), saved_step=None)
    saver.save(contents, step=3, best_step=None)
    saver.wait()
    saved = run.path / "checkpoints/step-00000003"
    before = saved.stat().st_ino
    for again in (saver, Saver(run, 2, Console(file=io.StringIO()), saved_step=3)):
        (run.path / "best").unlink(missing_ok=True)
        again.save(contents, step=3, best_step=3)
        again.wait()
        assert saved.stat().st_ino == before
        assert (run.path / "best").read_text() == "step-00000003\n"


def test_a_step_that_the_run_comes_to_again_after_a_rollback_is_saved_anew(saver, run, contents):
    for step in (1, 2):
        saver.save(contents, step=step, best_step=None)
    saver.wait()
    checkpoint_2 = run.path / "checkpoints/step-00000002"
    for path in checkpoint_2.rglob("*"):
        if path.is_file():
            path.unlink()
    saver.on_rollback(RollbackFacts(step=1, from_step=2, reason="", rollbacks=1, lr_factor=0.5))
    saver.save(contents, step=2, best_step=None)
    saver.wait()
    checkpoint.verify(checkpoint_2)


# What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["step", "save", "wait", "end", "leaving"])
def test_what_fails_in_the_background_is_raised_by_whatever_comes_next(saver, run, contents, event):
    saver.save(contents, step=1, best_step=1)
    saver.wait()
    file_in_the_way(run, 2)
    saver.save(contents, step=2, best_step=2)
    threads = [thread for thread in threading.enumerate() if thread.name == "pellucid-saver"]
    for thread in threads:
        thread.join()
    act = {
        "step": lambda: saver.on_step(STEP),
        "save": lambda: saver.save(contents, step=3, best_step=2),
        "wait": saver.wait,
        "end": lambda: saver.on_end(END),
        "leaving": lambda: saver.__exit__(None, None, None),
    }
    with pytest.raises(StorageError, match="step-00000002: is in the way"):
        act[event]()
    assert (run.path / "latest").read_text() == (run.path / "best").read_text() == "step-00000001\n"
    assert left(run) == ["step-00000001", "step-00000002"]
    checkpoint.verify(run.path / "checkpoints/step-00000001")
    saver.on_step(STEP)  # it is raised once


def test_a_full_disk_is_told_at_once(saver, run, contents, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50_000))
    with pytest.raises(StorageError, match=r"a checkpoint needs .* MB and the disk has 0\.1 MB free"):
        saver.save(contents, step=1, best_step=None)
    assert left(run) == []


def test_where_memory_is_short_training_waits_and_that_is_said_once(saver, run, contents, monkeypatch, gate):
    free = 2 * contents.tensor_bytes - 2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    gate.open()
    for step in (1, 2):
        saver.save(contents, step=step, best_step=None)
        assert f"step-{step:08}" in left(run)
        assert gate.log[-1] == ("end", f"step-{step:08}")
    assert saver.console.file.getvalue().count("training waits while checkpoints are written") == 1


def test_an_error_elsewhere_lets_the_save_under_way_finish(saver, run, contents, gate):
    saver.save(contents, step=1, best_step=None)
    threading.Timer(0.05, gate.open).start()
    with pytest.raises(ValueError, match="elsewhere"), saver:
        raise ValueError("elsewhere")
    checkpoint.verify(run.path / "checkpoints/step-00000001")


def test_a_failed_save_is_said_beside_an_error_elsewhere(saver, run, contents):
    file_in_the_way(run, 1)
    saver.save(contents, step=1, best_step=None)
    with pytest.raises(ValueError, match="elsewhere"), saver:
        raise ValueError("elsewhere")
    assert "the last checkpoint could not be written: " in saver.console.file.getvalue()
    assert "step-00000001: is in the way" in saver.console.file.getvalue()


def test_a_second_interrupt_waits_for_nothing(saver, contents, gate):
    saver.save(contents, step=1, best_step=None)
    with pytest.raises(KeyboardInterrupt), saver:
        raise KeyboardInterrupt
    assert ("end", "step-00000001") not in gate.log


def test_a_copy_is_one_and_keeps_what_is_no_tensor(contents):
    copy = contents.snapshot()
    assert replace(copy, model={}, averaged={}, train_tensors={}) == replace(
        contents, model={}, averaged={}, train_tensors={}
    )
    for name, tensor in contents.model.items():
        assert torch.equal(copy.model[name], tensor)
        assert copy.model[name].data_ptr() != tensor.data_ptr()


def test_waiting_is_for_the_threads_end(saver, contents, monkeypatch) -> None:
    """Python aborts ("terminate called …") where it ends while a thread is within torch."""
    told = Future.set_result

    def lingering(self, result):
        told(self, result)
        time.sleep(0.3)

    monkeypatch.setattr(Future, "set_result", lingering)
    before = set(threading.enumerate())  # other tests' may not have ended
    saver.save(contents, step=20, best_step=None)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"pellucid-saver"}
    saver.wait()
    assert set(threading.enumerate()) <= before
