"""The command line: upstream's, told of our model; one line where something is missing."""

import json
import subprocess
import sys

import pytest

from pellucid.evaluate.lm_eval.__main__ import main, with_defaults

OURS = ["run", "--model", "pellucid", "--batch_size", "auto"]


@pytest.mark.parametrize(
    ("words", "became"),
    [
        (["--tasks", "a"], [*OURS, "--tasks", "a"]),
        (["run", "--tasks", "a", "--model", "hf"], [*OURS, "--tasks", "a", "--model", "hf"]),
        (["run", "--config", "own.yaml"], ["run", "--config", "own.yaml"]),
        (["--config=own.yaml"], ["run", "--config=own.yaml"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_what_is_left_out_is_said_before_the_users_words(words, became):
    assert with_defaults(words) == became


def test_a_missing_library_is_one_line_with_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.__main__", raising=False)
    assert main(["--tasks", "a"]) == 2
    assert capsys.readouterr().err == (
        "error: python -m pellucid.evaluate.lm_eval needs the library lm_eval, which is not installed: "
        "pip install 'pellucid[eval]'\n"
    )


@pytest.mark.slow  # upstream reads the names of its own 14,000 tasks first
def test_the_command_prints_upstreams_table_and_writes_its_files(write_task, checkpoints, tmp_path):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: the extra `eval`")
    folder = write_task(
        "pairs",
        [{"a": "He is here.", "b": "He are here."}],
        output_type="multiple_choice",
        doc_to_text="",
        doc_to_choice="{{[a, b]}}",
        doc_to_target=0,
        target_delimiter="",
        metric_list=[{"metric": "acc"}],
    )
    words = (
        f"--model_args pretrained={checkpoints['decoder']},device=cpu --tasks pairs --include_path {folder}"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pellucid.evaluate.lm_eval",
            *words.split(),
            "--output_path",
            tmp_path / "out",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"pellucid ({{'pretrained': '{checkpoints['decoder']}', 'device': 'cpu'}})" in done.stdout
    assert "|pairs|" in done.stdout
    (file,) = (tmp_path / "out").rglob("results_*.json")
    said = json.loads(file.read_text(encoding="utf-8"))
    assert said["results"]["pairs"]["acc,none"] in (0.0, 1.0)
    assert said["config"]["model_source"] == str(checkpoints["decoder"])


def test_an_error_of_ours_is_one_line(capsys, monkeypatch, tmp_path):
    upstream = pytest.importorskip("lm_eval.__main__", reason="lm_eval is not installed: the extra `eval`")
    from pellucid.evaluate.lm_eval import PellucidLM

    monkeypatch.setattr(sys, "argv", ["lm_eval"])
    monkeypatch.setattr(upstream, "cli_evaluate", lambda: PellucidLM(str(tmp_path / "none"), device="cpu"))
    assert main(["--tasks", "a"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/none: no such run or checkpoint\n"
    assert sys.argv == ["lm_eval", *OURS, "--tasks", "a"]
