"""How the commands end: exit statuses, messages, tracebacks only where asked for."""

import errno
import io
import sys

import pytest

from pellucid.cli.main import app, main
from pellucid.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GenerationError,
    PellucidError,
    ResumeError,
    StorageError,
    TokenizerError,
    TrainingError,
)

COMMANDS = [command.name for command in app.registered_commands]


@pytest.fixture
def failing(monkeypatch):
    """Let the work of `pellucid plan` end with this exception."""

    def set_up(error: BaseException) -> None:
        def fail(*words, **settings):
            raise error

        monkeypatch.setattr("pellucid.cli.plan.run_config", fail)

    return set_up


def test_the_commands_are_there():
    assert {"train", "generate", "evaluate", "prepare", "plan", "config", "verify-resume"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(cli, command):
    outcome = cli(command, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert "--json" in outcome.out


@pytest.mark.parametrize("command", ["train", "plan", "config", "verify-resume"])
def test_commands_that_take_a_preset_list_them(cli, command):
    from pellucid.presets import RUNS

    shown = cli(command, "-h").out
    assert all(name in shown for name in RUNS)


def test_the_help_names_every_command(cli):
    outcome = cli("--help")
    assert outcome.status == 0
    assert all(command in outcome.out for command in COMMANDS)
    assert "--debug" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "--resum", "x"], "No such option"),
        (["prepare", "x.txt"], "--out"),
        (["prepare", "--out", "x"], "SOURCE"),
        (["verify-resume", "debug", "--steps", "1"], "--steps"),
        (["evaluate", "--seq-len", "0"], "--seq-len"),
        (["evaluate", "--max-tokens", "0"], "--max-tokens"),
        (["evaluate", "--split", "test"], "'test' is not one of"),
        (["generate", "--preset", "wild"], "there is no sampling preset 'wild'"),
    ],
)
def test_words_that_cannot_be_understood_end_with_2(cli, words, message):
    outcome = cli(*words)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *((kind("what it says"), 2) for kind in (ConfigError, TokenizerError, DataError, CheckpointError, ResumeError,
                                                 StorageError)),
        (TrainingError("what it says"), 1),
        (GenerationError("what it says"), 1),
        (PellucidError("what it says"), 1),
    ],
)  # fmt: skip
def test_an_error_of_ours_is_one_message_and_its_status(failing, cli, error, status):
    failing(error)
    outcome = cli("plan", "debug")
    assert (outcome.status, outcome.out, outcome.err) == (status, "", "error: what it says\n")


def test_debug_shows_the_traceback_besides(failing, cli):
    failing(DataError("what it says"))
    outcome = cli("plan", "debug", "--debug")
    assert outcome.status == 2
    assert outcome.err.startswith("Traceback (most recent call last)")
    assert outcome.err.endswith("\nerror: what it says\n")


def test_an_error_that_is_not_ours_is_not_hidden(failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["plan", "debug"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_said_with_what_to_do(failing, cli, error):
    failing(error)
    outcome = cli("plan", "debug")
    assert outcome.status == 1
    assert outcome.err.startswith("error: out of memory; ")
    assert "train.micro_batch" in outcome.err
    assert "Traceback" not in outcome.err


def test_another_runtime_error_is_not_taken_for_it(failing):
    failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        main(["plan", "debug"])


def test_an_impatient_ctrl_c_says_that_it_stopped(failing, cli):
    failing(KeyboardInterrupt())
    outcome = cli("plan", "debug")
    assert (outcome.status, outcome.err) == (130, "stopped\n")


class ClosedPipe(io.StringIO):
    """Standard output whose reader has left."""

    def fileno(self) -> int:
        return 12345

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(
    "words", [["config", "debug", "--json"], ["config", "debug"]], ids=["meanwhile", "at the end"]
)
def test_a_reader_that_has_left_is_no_error(words):
    led_nowhere = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", ClosedPipe())
        patch.setattr("os.dup2", lambda source, target: led_nowhere.append(target))
        assert main(words) == 128 + 13
    assert led_nowhere == [12345]


def test_text_reaches_a_pipe_of_another_encoding(run_directory, monkeypatch):
    """As on Windows, where a pipe is not UTF-8: what it lacks is replaced, nothing breaks."""
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="ascii"))
    assert main(["generate", "--prompt", "caf\u00e9", "--max-new-tokens", "4"]) == 0
    assert pipe.getvalue().startswith(b"caf?")
