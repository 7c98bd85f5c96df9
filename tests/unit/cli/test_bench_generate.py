"""`pellucid bench generate`."""

import subprocess
import sys

import pytest

SHORT = ("--lengths", "2,5", "--batch-sizes", "1,3", "--prompt-tokens", 4)


def test_every_format_and_batch_size_is_a_row(cli, tiny):
    found = cli("bench", "generate", *tiny, *SHORT, "--dtypes", "fp32,bf16", "--json").json
    rows = [(row["form"], row["batch_size"]) for row in found["rows"]]
    assert rows == [("fp32", 1), ("fp32", 3), ("bf16", 1), ("bf16", 3)]
    for row in found["rows"]:
        assert [length["new_tokens"] for length in row["lengths"]] == [2, 5]
        assert min(row["cached_s"] + row["recomputed_s"]) > 0
    assert found["rows"][0]["largest_difference"] < 1e-5


def test_a_table_says_where_the_two_cross(cli, tiny):
    outcome = cli("bench", "generate", *tiny, *SHORT, "--dtypes", "fp32")
    assert outcome.status == 0
    assert "fp32, batch 3" in outcome.out
    assert "the cache is ahead" in outcome.out
    assert "random weights, 16 positions" in outcome.err


def test_a_run_is_measured_with_the_lengths_that_fit(cli, run_directory):
    words = ("--batch-sizes", "1", "--dtypes", "fp32", "--prompt-tokens", 4, "--json")
    (row,) = cli("bench", "generate", run_directory, *words).json["rows"]
    assert [length["new_tokens"] for length in row["lengths"]] == [12]  # of 16 positions


def test_lengths_that_were_asked_for_must_fit(cli, run_directory):
    outcome = cli("bench", "generate", run_directory, "--lengths", "2,100", "--prompt-tokens", 4)
    assert outcome.status == 2
    assert "the model has room for 1 to 12 behind a prompt of 4" in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lengths", "0,4"), "--lengths '0,4': give numbers from 1 on"),
        (("--lengths", ""), "--lengths '': give numbers from 1 on"),
        (("--batch-sizes", "1,x"), "--batch-sizes '1,x': give numbers from 1 on"),
        (("--dtypes", "fp32,fp8"), "'fp8' is none of fp32, fp16, bf16"),
        (("--plot", "cache.gif"), "ends in .png"),
        (("nothing/there",), "no such run or checkpoint"),
        (("tinystorie",), "did you mean 'tinystories'?"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(cli, words, said):
    assert said in cli("bench", "generate", *words).error


def test_a_picture_is_drawn(cli, tiny, workdir):
    pytest.importorskip("matplotlib")
    outcome = cli("bench", "generate", *tiny, *SHORT, "--dtypes", "fp32", "--plot", "cache.svg")
    assert outcome.status == 0
    picture = (workdir / "cache.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml")
    assert "written: cache.svg" in outcome.err


def test_help_answers_without_torch():
    code = (
        "import sys; from pellucid.cli.main import main; "
        "assert main(['bench', 'generate', '--help']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
