"""On a real pseudo-terminal: `pellucid train` offers quick, 16m and full; `generate` takes turns and is interrupted."""

import codecs
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from pellucid import checkpoint
from pellucid.generate import SamplingConfig, generate_text
from pellucid.generate.text import printable

if os.name == "nt":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)

import pty
import termios

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
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read_until(self, pattern: str, process, *, seconds: float = 60) -> None:
        os.set_blocking(self.ours, False)
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown
            ended = process.poll() is not None
            try:
                self.shown += self._utf8.decode(os.read(self.ours, 4096))
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


# Writing ----------------------------------------------------------------------------------------------

SIGN = r"> $"
MANY = "40000"


@pytest.fixture
def write_on(run_directory, start, terminal, monkeypatch):
    """`pellucid generate WORDS` as the foreground job of the terminal, so that typing Ctrl-C interrupts it."""
    monkeypatch.setenv("TERM", "xterm")
    own = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "from pellucid.cli.main import main; sys.exit(main())"
    )
    theirs, started = terminal.theirs, []

    def run(*words):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", own, "generate", *map(str, words)],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def loaded(run_directory):
    return checkpoint.load(checkpoint.find_checkpoint(run_directory)[0])


def modes(terminal):
    """How the terminal treats what is typed and shown."""
    return termios.tcgetattr(terminal.theirs)


def shown_text(loaded, prompt, **settings):
    """The text as a terminal gets it, as a pattern."""
    sampling = SamplingConfig(temperature=0, max_new_tokens=4, **settings)
    text = printable(generate_text(loaded.model, loaded.tokenizer, prompt, sampling).text)
    return re.escape(text.replace("\n", "\r\n"))


@pytest.mark.slow
def test_generate_takes_turns_until_ctrl_d(write_on, terminal, loaded):
    before = modes(terminal)
    process = write_on("--max-new-tokens", 4, "--preset", "greedy")
    for prompt in ("To be", "or not"):
        terminal.read_until(SIGN, process)
        terminal.type(prompt + "\r")
        answer = shown_text(loaded, prompt)
        terminal.read_until(rf"{prompt}\s[^\n]*\n[^\n]*{answer}\r\n[\s\S]*4 tokens, [\s\S]*{SIGN}", process)
    terminal.type("\x04")
    assert process.wait(timeout=30) == 0
    assert modes(terminal) == before


def test_ctrl_c_stops_a_text_and_the_next_is_written(write_on, terminal, loaded):
    before = modes(terminal)
    process = write_on("--preset", "greedy", "--max-new-tokens", MANY, "--min-new-tokens", MANY)
    terminal.read_until(SIGN, process)
    terminal.type("To be\r")
    terminal.read_until(rf"To be\s[^\n]*\n[^\n]*{shown_text(loaded, 'To be', min_new_tokens=4)}", process)
    assert modes(terminal) == before, "while a text is written"
    terminal.type("\x03")
    terminal.read_until(rf"\r\n[^\n]*stopped[^\n]*\r\n[^\n]*{SIGN}", process)
    assert "Traceback" not in terminal.shown
    terminal.type("/set min_new_tokens 0\r/set max_new_tokens 4\r")
    terminal.read_until(r"temperature 0.0, max_new_tokens 4, seed 1", process)
    terminal.type("or not\r")
    answer = shown_text(loaded, "or not")
    terminal.read_until(rf"or not\s[^\n]*\n[^\n]*{answer}\r\n[\s\S]*4 tokens, [\s\S]*{SIGN}", process)
    terminal.type("\x03")
    assert process.wait(timeout=30) == 130
    terminal.read_until(r"\n[^\n]*stopped", process)
    assert "Traceback" not in terminal.shown
    assert modes(terminal) == before


@pytest.mark.slow
def test_a_text_that_was_stopped_is_part_of_the_history(write_on, terminal, loaded):
    process = write_on("--preset", "greedy", "--max-new-tokens", MANY, "--min-new-tokens", MANY)
    terminal.read_until(SIGN, process)
    terminal.type("/history on\r")
    terminal.read_until(rf"history on \(0 tokens\)[\s\S]*{SIGN}", process)
    terminal.type("To be\r")
    terminal.read_until(rf"To be\s[^\n]*\n[^\n]*{shown_text(loaded, 'To be', min_new_tokens=4)}", process)
    terminal.type("\x03")
    terminal.read_until(rf"stopped[\s\S]*{SIGN}", process)
    terminal.type("/show\r")
    terminal.read_until(
        rf"history on \([\d,]+ tokens\)[\s\S]*history on \(\d+ tokens\)[\s\S]*{SIGN}", process
    )
    (count,) = re.findall(r"history on \(([1-9]\d*) tokens\)", terminal.shown)
    assert int(count) >= len("To be") + 4
    terminal.type("/quit\r")
    assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_a_line_can_be_edited_and_called_back(write_on, terminal):
    pytest.importorskip("readline")
    process = write_on("--max-new-tokens", 4)
    terminal.read_until(SIGN, process)
    terminal.type("/set top_k 8\x7f9\r")
    terminal.read_until(rf"top_k 9, [\s\S]*{SIGN}", process)
    terminal.type("\x1b[A\x7f7\r")
    terminal.read_until(rf"top_k 7, [\s\S]*{SIGN}", process)
    terminal.type("\x04")
    assert process.wait(timeout=30) == 0


def test_ctrl_c_in_the_only_text_ends_with_130_and_a_clean_terminal(write_on, terminal, loaded):
    before = modes(terminal)
    words = ("--preset", "greedy", "--max-new-tokens", MANY, "--min-new-tokens", MANY)
    process = write_on("--prompt", "To be", *words)
    terminal.read_until(rf"\nTo be{shown_text(loaded, 'To be', min_new_tokens=4)}", process)
    terminal.type("\x03")
    assert process.wait(timeout=30) == 130
    terminal.read_until(r"\r\nstopped\r\n$", process)
    assert "Traceback" not in terminal.shown
    assert modes(terminal) == before


@pytest.mark.slow
def test_several_results_have_headings(write_on, terminal):
    process = write_on("--prompt", "x", "--max-new-tokens", 4, "--num-beams", 2, "--num-results", 2)
    terminal.read_until(
        r"── result 1 of 2, score -\d[\s\S]*── result 2 of 2, score -[\s\S]*2 texts, 8 tokens", process
    )
    assert process.wait(timeout=30) == 0
