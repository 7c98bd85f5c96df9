"""What every test starts from: one thread, a cache of its own, and torch's settings as they were."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before anything imports torch: the tests run side by side, one on each core.
os.environ["OMP_NUM_THREADS"] = "1"
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared data lies beside the tests' temporary directories; parallel workers share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PELLUCID_CACHE_DIR", str(folder / "cache"))
        yield


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """A run sets torch's determinism, threads and the process's signal handlers: put them back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        if torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(False)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, fresh and empty, so that `runs/` and `data/` never appear in the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 20,000 characters: the beginning of the built-in corpus."""
    from pellucid.data.sources.base import documents
    from pellucid.data.sources.builtin import BuiltinSource

    (document,) = documents(BuiltinSource("shakespeare"), whole=True)
    path = tmp_path_factory.mktemp("corpus") / "plays.txt"
    path.write_text(document.text[:20_000], encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="session")
def tiny(corpus: Path) -> tuple[str, ...]:
    """A preset and overrides: a run of 8 updates in a fraction of a second, with two saves and evaluations."""
    return (
        "debug",
        "model.d_model=16",
        "model.num_layers=1",
        "model.max_seq_len=16",
        f"data.path={corpus}",
        "train.steps=8",
        "train.batch_tokens=128",
        "train.precision=fp32",
        "train.schedule.warmup_steps=2",
        "train.eval_every=4",
        "train.eval_tokens=64",
        "train.checkpoint_every=4",
        "train.sample_tokens=0",
    )


@pytest.fixture
def tiny_config(tiny: tuple[str, ...]):
    """The tiny run's config, with further overrides."""
    from pellucid.cli.options import run_config

    return lambda *overrides: run_config([*tiny, *overrides])


@pytest.fixture
def train_tiny(workdir: Path, tiny_config):
    """Train the tiny run, with further overrides, in this process; returns its RunResult."""
    from rich.console import Console

    from pellucid.train import train

    def run(*overrides: str, **settings):
        settings.setdefault("console", Console(file=io.StringIO()))
        return train(tiny_config(*overrides), **settings)

    return run


@pytest.fixture
def cut_off_after():
    """Start a run by `start(hooks)` and end it after an update, in a way that nothing inside it expects."""
    from pellucid.train.facts import Request
    from pellucid.train.hooks import Hook

    class PowerCutError(Exception):
        pass

    class PowerCut(Hook):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_step(self, facts):
            if facts.step == self.step:  # it is logged by then, and not yet saved
                raise PowerCutError
            return Request.NOTHING

    def run(step: int, start: Callable[[list[Hook]], object]) -> None:
        with pytest.raises(PowerCutError):
            start([PowerCut(step)])

    return run


@pytest.fixture(scope="session")
def _trained(tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rich.console import Console

    from pellucid.cli.options import run_config
    from pellucid.train import train

    path = tmp_path_factory.mktemp("trained") / "mine"
    train(run_config([*tiny, f"run.dir={path}"]), console=Console(file=io.StringIO()))
    return path


@pytest.fixture
def run_directory(_trained: Path, workdir: Path) -> Path:
    """A trained tiny run in `runs/mine` of the fresh directory: a copy of its own."""
    return Path(shutil.copytree(_trained, workdir / "runs/mine"))


@pytest.fixture
def pellucid(workdir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m pellucid WORDS` as a process of its own, in the fresh directory."""

    def run(*words: object, stdin: str = "", **settings) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pellucid", *map(str, words)],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=False,
            **settings,
        )

    return run
