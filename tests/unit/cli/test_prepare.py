"""`pellucid prepare`: its options, and what it says."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from pellucid import tokenizers
from pellucid.data.shards import open_shards
from pellucid.tokenizers.tokenizer_json import to_tokenizer_json


def write_lines(path, texts, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")


TEXTS = [f"Story {number}: the ox went home." for number in range(40)]


def counts(result):
    return result["train"]["documents"] + result["val"]["documents"]


def contents(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_equal_documents_are_dropped_and_counted_when_asked(cli, workdir):
    write_lines(workdir / "a.jsonl", [*TEXTS, *TEXTS[:7]])
    assert counts(cli("prepare", "a.jsonl", "--out", "all", "--json").json) == 47
    outcome = cli("prepare", "a.jsonl", "--out", "once", "--deduplicate")
    assert "duplicates dropped" in outcome.err
    result = cli("prepare", "a.jsonl", "--out", "once", "--deduplicate", "--json").json
    assert counts(result) == 40
    assert result["train"]["duplicates"] + result["val"]["duplicates"] == 7


def test_a_marker_divides_a_text_file_into_documents(cli, workdir):
    (workdir / "a.txt").write_text("\n<|endoftext|>\n".join(TEXTS), encoding="utf-8")
    result = cli("prepare", "a.txt", "--out", "out", "--document-marker", "<|endoftext|>", "--json").json
    assert counts(result) == 40
    assert result["train"]["bytes"] + result["val"]["bytes"] == sum(map(len, TEXTS))
    outcome = cli("prepare", "a.txt", "--out", "one")
    assert "train: 1 documents" in outcome.err
    assert "<|endoftext|> is read as text" in outcome.err


def test_bytes_that_are_not_utf8_stop_are_replaced_or_are_left_out(cli, workdir):
    write_lines(workdir / "a.jsonl", TEXTS)
    with (workdir / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "a\xffb"}\n')
    said = cli("prepare", "a.jsonl", "--out", "out").error
    assert "line 41: not a text file: byte" in said
    assert "--errors replace" in said
    assert not (workdir / "out").exists()
    replaced = cli("prepare", "a.jsonl", "--out", "replaced", "--errors", "replace")
    assert "left out or mended: 1 documents, not UTF-8 (replaced) (first: a.jsonl, byte " in replaced.err
    skipped = cli("prepare", "a.jsonl", "--out", "skipped", "--errors", "skip", "--json").json
    assert counts(skipped) == 40
    assert skipped["left_out"]["not UTF-8"]["documents"] == 1
    manifest = json.loads((workdir / "skipped/manifest.json").read_text())
    assert manifest["left_out"] == {"not UTF-8": 1}
    assert manifest["source"]["errors"] == "skip"


def test_the_number_of_workers_changes_nothing(cli, workdir):
    write_lines(workdir / "a.jsonl", TEXTS)
    assert cli("prepare", "a.jsonl", "--out", "one", "--workers", 1).status == 0
    assert cli("prepare", "a.jsonl", "--out", "three", "--workers", 3).status == 0
    assert cli("prepare", "a.jsonl", "--out", "all").status == 0
    assert contents(workdir / "one") == contents(workdir / "three") == contents(workdir / "all")
    assert cli("prepare", "a.jsonl", "--out", "none", "--workers", 0).error.startswith(
        "error: workers: wanted at least 1, not 0"
    )


def test_a_directory_with_a_tokenizer_json_is_a_tokenizer(cli, workdir):
    pytest.importorskip("tokenizers")
    ours = tokenizers.build({"kind": "gpt2", "max_ranks": 1000})
    (workdir / "mine").mkdir()
    (workdir / "mine/tokenizer.json").write_text(json.dumps(to_tokenizer_json(ours)), encoding="utf-8")
    write_lines(workdir / "a.jsonl", TEXTS)
    outcome = cli("prepare", "a.jsonl", "--out", "out", "--tokenizer", "mine")
    assert outcome.status == 0, outcome.err
    assert "data.tokenizer.path=mine" in outcome.err.splitlines()[-1]
    shards = open_shards(workdir / "out")
    saved = tokenizers.load(shards.tokenizer_directory)
    text = saved.decode(shards.train.read(0, shards.train.tokens))
    assert text.startswith("Story ")
    assert shards.train.read(0, 5).tolist() == ours.encode(text).tolist()[:5]


@pytest.mark.parametrize("state", ["prepared", "unfinished", "just begun"])
def test_a_directory_inside_its_source_is_no_source(cli, workdir, state):
    (workdir / "s/a").mkdir(parents=True)
    write_lines(workdir / "s/a/a.jsonl", TEXTS)
    words = ["prepare", "s", "--out", "s/a/out", "--workers", 1]
    if state == "prepared":
        assert cli(*words).status == 0
    else:  # killed
        killed = (
            "import os, sys\nfrom pellucid.cli.main import main\nfrom pellucid.data.assembly import Assembler\n"
            f"setattr(Assembler, {'finish' if state == 'unfinished' else 'add'!r}, lambda *_: os._exit(9))\n"
            "main(sys.argv[1:])\n"
        )
        ended = subprocess.run([sys.executable, "-c", killed, *map(str, words)], check=False)
        assert ended.returncode == 9
        assert (workdir / "s/a/out/unfinished.json").exists()
        assert not (workdir / "s/a/out/manifest.json").exists()
    again = cli(*words)
    assert again.status == 0, again.err
    assert again.err.splitlines()[0] == "s/a/out: made by `pellucid prepare`; passed over"
    assert cli("prepare", "s/a/a.jsonl", "--out", "apart").status == 0
    nested, apart = contents(workdir / "s/a/out"), contents(workdir / "apart")
    assert nested.pop("manifest.json") != apart.pop("manifest.json")  # the source's name
    assert nested == apart


def test_the_next_command_has_a_prompt_that_a_char_tokenizer_knows(cli, tiny, workdir):
    write_lines(
        workdir / "a.jsonl", ["  42 oxen went home and came back"[number % 2 :] * 20 for number in range(40)]
    )
    write_lines(workdir / "digits.jsonl", [str(number) * 20 for number in range(100, 140)])
    (workdir / "lines.txt").write_text("1\n2\nox\n" * 100, encoding="utf-8")
    for name, wanted in {
        "a.jsonl": ["train.sample_prompt=a"],
        "digits.jsonl": ["train.sample_tokens=0"],
        "lines.txt": [],
    }.items():
        said = cli("prepare", name, "--out", f"{name}-out", "--tokenizer", "char", "--val-fraction", 0.3).err
        following = shlex.split(said.splitlines()[-1])
        assert following[:4] == ["next:", "pellucid", "train", "quick"]
        assert following[6:] == wanted
        run = cli("train", *tiny, "train.sample_tokens=3", *following[4:], "--json")
        assert run.status == 0, run.err


def test_help_says_what_the_format_is_of(cli):
    said = " ".join(cli("prepare", "--help").out.replace("│", " ").split())
    assert "Of standard input and of files whose suffix names no format, e.g. jsonl." in said


@pytest.mark.parametrize("workers", [1, 2])
def test_standard_input_is_a_source(workdir, workers):
    words = ["prepare", "-", "--format", "jsonl", "--out", "out", "--workers", str(workers), "--json"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    result = subprocess.run(
        [sys.executable, "-m", "pellucid", *words], input=lines, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert counts(json.loads(result.stdout)) == 40
    assert open_shards(workdir / "out").manifest.source.name == "stdin"


def test_what_has_come_and_what_is_there_is_said(cli, workdir):
    write_lines(workdir / "a.jsonl", [*TEXTS, "long " * 300, ""])
    said = cli("prepare", "a.jsonl", "--out", "out").err.splitlines()
    assert any(line.startswith("100%: 41 documents, 0.0 MB, ") and " documents/s, " in line for line in said)
    longest = next(line for line in said if "longest 1,501" in line)
    assert longest.startswith("  documents: median 28 tokens, ")
    assert any(line.startswith("  windows: ") and " of 1,024, " in line for line in said)
    assert any(
        line.startswith("left out or mended: 1 documents, empty (first: a.jsonl, byte ") for line in said
    )
    again = cli("prepare", "a.jsonl", "--out", "out").err.splitlines()
    assert "out: already prepared from the same source and tokenizer; used as it is" in again[0]


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom pellucid.cli.main import main\n"
        "try:\n    main(['prepare', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'tokenizers', 'pyarrow'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--deduplicate" in result.stdout
