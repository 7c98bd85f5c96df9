"""Paths: folders, patterns, standard input, and formats that no suffix names."""

import gc
import gzip
import hashlib
import io
import os
import sys
from pathlib import Path

import pytest

from pellucid.data.sources import documents, open_source
from pellucid.errors import ConfigError, DataError


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a/c.jsonl", "a/b/d.jsonl", ".hidden.jsonl", "a/.git/e.jsonl"):
        write(tmp_path / name, f'{{"text": "{name}"}}')
    write(tmp_path / "a/x.txt", "a/x.txt")
    write(tmp_path / "a/picture.png", b"\x89PNG")
    write(tmp_path / "a/part-1", '{"text": "a/part-1"}')
    return tmp_path


def texts(*paths: str | Path, **options: object) -> list[str]:
    return [document.text for document in documents(open_source(*paths, **options))]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jsonl", ["b.jsonl"]),
        ("**/*.jsonl", ["a/b/d.jsonl", "a/c.jsonl", "b.jsonl"]),
        ("a/*", ["a/c.jsonl", "a/x.txt"]),
        ("a/**", ["a/b/d.jsonl", "a/c.jsonl", "a/x.txt"]),
        ("?/[bx]*", ["a/x.txt"]),
        ("*/b/*.json?", ["a/b/d.jsonl"]),
    ],
)
def test_a_pattern_gives_files_in_the_order_of_their_paths(
    tree: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, found: list[str]
) -> None:
    assert texts(f"{tree}/{pattern}") == found
    monkeypatch.chdir(tree)
    assert texts(pattern) == found
    names = [file.name for file in open_source(pattern).record().files]
    assert [name.rpartition("/")[2] for name in names] == [name.rpartition("/")[2] for name in found]


def test_names_are_relative_to_the_fixed_part_of_a_pattern(tree: Path) -> None:
    record = open_source(f"{tree}/a/**/*.jsonl").record()
    assert [file.name for file in record.files] == ["b/d.jsonl", "c.jsonl"]
    assert record.name == "*.jsonl"


def test_a_pattern_that_nothing_fits(tree: Path) -> None:
    with pytest.raises(
        DataError, match=r"\*\.csv: no \.txt or \.jsonl file fits this pattern \(found: nothing\)"
    ):
        open_source(f"{tree}/*.csv")
    with pytest.raises(DataError, match=r"fits this pattern \(found: 1 \.png\)"):
        open_source(f"{tree}/a/*.png")


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "[ab].txt", "one")) == ["one"]


def test_a_folder_that_is_named_like_a_file(tmp_path: Path) -> None:
    write(tmp_path / "x.txt/a.txt", "one")
    (tmp_path / "x.txt/b.txt").mkdir()
    assert texts(tmp_path / "x.txt") == ["one"]
    assert texts(tmp_path) == ["one"]


def test_hidden_files_can_be_named(tree: Path) -> None:
    assert texts(tree / ".hidden.jsonl") == [".hidden.jsonl"]
    assert texts(tree / "a/.git") == ["a/.git/e.jsonl"]


def test_the_format_of_a_file_whose_suffix_names_none(tree: Path) -> None:
    assert texts(tree / "a/part-1", file_format="jsonl") == ["a/part-1"]
    assert texts(f"{tree}/a/part-*", file_format=".JSONL") == ["a/part-1"]
    assert texts(write(tree / "x.dat.gz", gzip.compress(b'["one"]')), file_format="json") == ["one"]
    assert texts(write(tree / "x.dat", gzip.compress(b'["one"]')), file_format="json.gz") == ["one"]
    assert texts(tree / "b.jsonl", tree / "a/part-1", file_format="jsonl") == ["b.jsonl", "a/part-1"]


def test_a_format_that_names_nothing(tree: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--format: there is no format 'jsnl'; did you mean 'jsonl'\? \(formats: txt, md,"
    ):
        open_source(tree / "a/part-1", file_format="jsnl")
    with pytest.raises(ConfigError, match=r"--format csv: .* \(.*b\.jsonl\); leave it out, or rename"):
        open_source(tree / "b.jsonl", file_format="csv")
    with pytest.raises(ConfigError, match=r"there is no format 'parquet\.gz'"):
        open_source(tree / "a/part-1", file_format="parquet.gz")


def test_a_file_that_no_format_reads_says_how_to_name_one(tree: Path) -> None:
    with pytest.raises(DataError, match=r"or name the format that it has with --format$"):
        open_source(tree / "a/part-1")


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\\udce9\.txt': the name is not UTF-8; rename it$"):
        open_source(tmp_path / os.fsdecode(b"gone\xe9.txt"))
    write(tmp_path / "a.txt", "one")
    try:
        bad = write(tmp_path / os.fsdecode(b"caf\xe9.txt"), "two")
    except OSError:
        pytest.skip("names are UTF-8 here")
    for path in (tmp_path, bad, f"{tmp_path}/*.txt"):
        with pytest.raises(DataError, match=r"^'.*caf\\udce9\.txt': the name is not UTF-8; rename it$"):
            open_source(path)
    bad.rename(bad.with_suffix(".bin"))
    assert texts(tmp_path) == ["one"]


@pytest.mark.parametrize("name", ["manifest.json", "unfinished.json"])
def test_json_that_is_named_like_a_file_of_ours_is_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"a/{name}", '["one"]')
    write(tmp_path / f"b/{name}", '[{"recipe": 5, "text": "two"}]')
    write(tmp_path / f"c/{name}", '{"recipe": {"source": "x"}, "text": "three"}')
    write(tmp_path / "c/z.json", '["four"]')
    assert texts(tmp_path) == ["one", "two", "three", "four"]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch):
    def pipe(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return pipe


def test_standard_input_is_a_running_text_unless_a_format_is_named(piped, tmp_path: Path) -> None:
    piped(b"some text")
    source = open_source("-")
    assert source.is_single_text
    assert [d.text for d in documents(source)] == [d.text for d in documents(source)] == ["some text"]
    record = source.record()
    assert record.name == "stdin"
    assert record.files[0].sha256 == hashlib.sha256(b"some text").hexdigest()
    piped(gzip.compress(b'{"text": "one"}\n{"text": }\n'))
    source = open_source("-", file_format="jsonl.gz")
    with pytest.raises(DataError, match=r"^standard input, line 2: not JSON"):
        list(documents(source))
    piped(b"two")
    assert texts(write(tmp_path / "a.jsonl", '{"text": "one"}'), "-") == ["one", "two"]


def test_standard_input_is_kept_as_long_as_its_source(piped) -> None:
    piped(b'{"text": "one"}\n')
    source = open_source("-", file_format="jsonl")
    (block,) = source.blocks()
    path = block.at.entry.file.path
    gc.collect()
    assert path.exists()
    del source
    gc.collect()
    assert not path.exists()


def test_nothing_on_standard_input(piped) -> None:
    piped(b"")
    with pytest.raises(DataError, match="standard input: is empty; pipe text into it"):
        open_source("-")


@pytest.mark.skipif(os.name == "nt", reason="a pipe in the file system")
def test_what_is_neither_a_file_nor_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: neither a file nor a folder"):
        open_source(tmp_path / "pipe.txt")


def test_several_paths_are_numbered_without_reading_them(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.sources.stored.sha256_file", lambda path: pytest.fail("hashed"))
    source = open_source(tree / "b.jsonl", tree / "a", "builtin:shakespeare")
    ends = [block.end.file for block in source.blocks()]
    assert ends == [1, 2, 3, 4, 5]
    assert [portion.file for portion in source.portions(10**9)] == [0, 1, 2, 3, 4]
