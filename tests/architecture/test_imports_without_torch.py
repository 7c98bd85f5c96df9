"""What needs no torch does not pay for it: importing torch takes a second, `--help` should take none."""

import subprocess
import sys

import pytest

from pellucid.cli.main import app

COMMANDS = [[], *([command.name] for command in app.registered_commands)]


def heavy_modules_after(code: str) -> str:
    """Run the code in a fresh process; which heavy libraries it has loaded at the end, on the last line."""
    look = "import sys; print(); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{look}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "module",
    [
        "pellucid",
        "pellucid.errors",
        "pellucid.config",
        "pellucid.runtime.files",
        "pellucid.runtime.seeding",
        "pellucid.tokenizers",
        "pellucid.data.prepare",
        "pellucid.generate",
        "pellucid.generate.sampling.config",
        "pellucid.generate.sampling.presets",
        "pellucid.evaluate.tasks",
    ],
)
def test_importing_a_light_module_leaves_torch_alone(module: str):
    assert heavy_modules_after(f"import {module}") == "[]"


def test_settings_of_generation_leave_torch_alone():
    code = "from pellucid.generate import PRESETS, SamplingConfig, preset; PRESETS['greedy'], SamplingConfig(top_p=0.9)"
    assert heavy_modules_after(code) == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_answers_without_torch(command: list[str]):
    code = f"from pellucid.cli.main import main; assert main({[*command, '--help']}) == 0"
    assert heavy_modules_after(code) == "[]"


def test_a_public_torch_name_is_reached_through_the_package():
    assert heavy_modules_after("from pellucid import DecoderLM") == "['torch']"
