"""On a terminal: `pellucid train` offers quick, 16m and full, and `generate` takes turns. A real pseudo-terminal."""

import os
import re
import signal
import time

import pytest

from pellucid import checkpoint
from pellucid.generate import SamplingConfig, generate_text
from pellucid.generate.text import printable

if os.name == "nt":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)

import pty

LITTLE = (
    "model.d_model=16",
    "model.num_layers=1",
    "model.num_heads=1",
    "model.max_seq_len=16",
    "train.seq_len=16",
    "train.batch_tokens=128",
    "train.steps=2",
    "train.eval_tokens=64",
    "train.sample_tokens=8",
)


class Terminal:
    """The other end of a pseudo-terminal: types, and reads what is shown."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read_until(self, pattern: str, process, *, seconds: float = 60) -> None:
        os.set_blocking(self.ours, False)
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown
            ended = process.poll() is not None
            try:
                self.shown += os.read(self.ours, 4096).decode()
            except OSError:  # nothing there now
                assert not ended, self.shown
                time.sleep(0.01)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal():
    opened = Terminal()
    yield opened
    opened.close()


@pytest.fixture
def start_on(start, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return lambda *words: start(*words, stdin=terminal.theirs, stdout=terminal.theirs, stderr=terminal.theirs)


def test_train_offers_quick_16m_and_full(start_on, terminal, corpus, workdir):
    process = start_on("train", *LITTLE, f"data.path={corpus}")
    terminal.read_until(r"quick[\s\S]*16m[\s\S]*full[\s\S]*\[quick/16m/full\]", process)
    assert not (workdir / "runs").exists()
    terminal.type("quick\r")
    terminal.read_until(r"next: pellucid generate runs/quick-001", process)
    assert process.wait(timeout=30) == 0
    assert "\r\x1b[K" in terminal.shown, "one line of progress is rewritten"
    assert (workdir / "runs/quick-001/checkpoints/step-00000002").is_dir()


@pytest.mark.parametrize("leave", ["Ctrl-C", "Ctrl-D"])
def test_who_does_not_choose_trains_nothing(start_on, terminal, workdir, leave):
    process = start_on("train")
    terminal.read_until(r"\[quick/16m/full\]", process)
    if leave == "Ctrl-D":
        terminal.type("\x04")
    else:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    terminal.read_until("stopped", process)
    assert "Traceback" not in terminal.shown
    assert list(workdir.iterdir()) == []


@pytest.mark.slow
def test_generate_takes_turns_until_ctrl_d(start_on, terminal, run_directory):
    loaded = checkpoint.load(checkpoint.find_checkpoint(run_directory)[0])
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    process = start_on("generate", "--max-new-tokens", 4, "--preset", "greedy")
    for prompt in ("To be", "or not"):
        terminal.read_until(r"> $", process)
        terminal.type(prompt + "\r")
        text = printable(generate_text(loaded.model, loaded.tokenizer, prompt, greedy).text)
        answer = re.escape(text.replace("\n", "\r\n"))
        terminal.read_until(rf"{prompt}\s*{answer}\r\n[\s\S]*4 tokens, [\s\S]*> $", process)
    terminal.type("\x04")
    assert process.wait(timeout=30) == 0
