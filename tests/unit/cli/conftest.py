"""Commands in this process, which is fast; tests/integration runs real processes."""

import io
import json
import sys
from dataclasses import dataclass

import pytest

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


@pytest.fixture
def cli(workdir, capsys, monkeypatch):
    """Run a command; `stdin` is what is piped into it."""

    def run(*words, stdin: str | bytes = "") -> Outcome:
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return run
