"""Commands in this process, which is fast; tests/integration runs real processes."""

import io
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from rich.console import Console

from pellucid.cli.main import main


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What was said beside the exit status 2: there must be one clear message and nothing else."""
        assert self.status == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert sum(line.startswith("error: ") for line in lines) == 1, self.err
        return next(line for line in lines if line.startswith("error: "))

    @property
    def json(self):
        """The one JSON object on standard output."""
        assert self.status == 0, self
        (line,) = self.out.splitlines()
        return json.loads(line)


class Typed(io.TextIOWrapper):
    """Standard input as if somebody typed it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def cli(workdir, capsys, monkeypatch):
    """Run a command; `stdin` is what is piped into it, `typed` are the lines typed on a terminal, then Ctrl-D."""

    def run(*words, stdin: str | bytes = "", typed: Sequence[str] | None = None) -> Outcome:
        if typed is not None:
            stdin = "".join(f"{line}\n" for line in typed)
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        kind = io.TextIOWrapper if typed is None else Typed
        monkeypatch.setattr(sys, "stdin", kind(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def encoder_decoder(tiny, workdir, corpus):
    """A run of a tiny encoder-decoder, whose data is `lines.txt`."""
    from pellucid.cli.options import run_config
    from pellucid.train import train

    shutil.copy(corpus, "lines.txt")
    ours = ("data.path=lines.txt", "data.objective.kind=prefix", "run.dir=runs/pair")
    model = ("model.kind=encoder_decoder", "model.num_encoder_layers=1", "model.num_decoder_layers=1")
    words = [word for word in tiny[1:] if word.startswith("train.")]
    size = ("model.d_model=16", "model.num_heads=2", "model.max_seq_len=16")
    train(run_config(["debug", *model, *size, *words, *ours]), console=Console(file=io.StringIO()))
    return "runs/pair"
