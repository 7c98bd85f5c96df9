"""Files that are cut off, broken or not what their name says: an error that names them and the place."""

import gzip
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pellucid.data.sources import documents, open_source
from pellucid.data.sources.content import BLOCK_BYTES
from pellucid.errors import DataError, MissingLibraryError

from .conftest import COMPRESS

Stored = Callable[..., Path]


def refusal(path: Path, **options: object) -> str:
    """The message of the DataError that reading raises, under every policy the same."""
    messages: list[str] = []
    for errors in ("strict", "replace"):
        with pytest.raises(DataError) as caught:
            list(documents(open_source(path, errors=errors, **options)))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Compression

TEXTS = [f"line {number} of some text" for number in range(20_000)]


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".json", ".csv"])
def test_a_compressed_file_that_ends_too_early(stored: Stored, kind: str, packed: str) -> None:
    path = stored(TEXTS, f"a{kind}{packed}")
    whole = path.read_bytes()
    for kept in (1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        message = refusal(path)
        assert message.startswith(f"{path}: the {packed} file "), message
        assert "decompressed bytes; fetch or write it again" in message
    size = int(message.partition("after ")[2].split()[0].replace(",", ""))
    assert size > 200_000


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz"])
def test_a_compressed_file_that_is_broken(stored: Stored, packed: str) -> None:
    path = stored(TEXTS, f"a.jsonl{packed}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert f"{path}: the {packed} file is broken (" in refusal(path)
    path.write_bytes(b"no such format, but some text")
    assert f"{path}: the {packed} file is broken (" in refusal(path)
    path.write_bytes(COMPRESS[packed](b'{"text": "one"}') + b"garbage at the end")
    assert "is broken (" in refusal(path)


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz"])
def test_compressed_streams_one_after_the_other_and_zeros_behind(tmp_path: Path, packed: str) -> None:
    compress = COMPRESS[packed]
    content = compress(b'{"text": "one"}\n{"te') + compress(b"") + compress(b'xt": "two"}') + bytes(8)
    path = write(tmp_path / f"a.jsonl{packed}", content)
    assert [d.text for d in documents(open_source(path))] == ["one", "two"]


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz"])
def test_a_compressed_file_with_nothing_in_it(tmp_path: Path, packed: str) -> None:
    for kind in (".txt", ".jsonl", ".json", ".csv"):
        path = write(tmp_path / f"a{kind}{packed}", COMPRESS[packed](b""))
        assert refusal(path) == f"{path}: the file is empty; remove it, or put text into it"


def test_compressed_text_is_not_in_memory_as_a_whole(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(["some", "words", "of", "text"], k=200)) for _ in range(1000)]
    lines = "".join(f'{{"text": "{text}"}}\n' for text in texts).encode()  # beyond what gzip looks back
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(lines * 60, 1))
    source = open_source(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.blocks()) == -(-60 * len(lines) // BLOCK_BYTES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25e6 < 60 * len(lines) / 2


# Formats


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.md"])
def test_a_binary_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"\x7fELF\x02\x01\x01\x00\x00\xff" * 200)
    with pytest.raises(DataError, match=r"a\.\w+(, line 1)?: (not a text file|broken or truncated Parquet)"):
        list(documents(open_source(path)))


def test_parquet_that_is_cut_off_or_broken(stored: Stored) -> None:
    path = stored(TEXTS, "a.parquet", 5000)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], whole[:3], b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(content)
        message = refusal(path)
        assert message.startswith(f"{path}: broken or truncated Parquet ("), message
        assert message.endswith("); fetch or write it again")
    middle = len(whole) // 2
    path.write_bytes(bytes(middle) + whole[middle:])
    assert "broken or truncated Parquet" in refusal(path)


def test_parquet_without_the_column(stored: Stored) -> None:
    path = stored(["one"], "a.parquet")
    assert refusal(path, text_field="texts") == (
        f"{path}: there is no field 'texts' (fields: id, text); name the field that holds the text with "
        "data.text_field; did you mean 'text'?"
    )
    assert refusal(path, text_field="id") == (
        f"{path}: field 'id' holds int64, not strings; name the field that holds the text (other fields: text)"
    )


def test_parquet_with_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(["one"]), pa.array(["two"]), pa.array(["three"])], ["text", "text", "body"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet: 2 columns have the name 'text'; write the file" in refusal(tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", text_field="body")
    assert [document.text for document in documents(source)] == ["three"]


def test_a_table_without_the_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,story\n1,one\n")
    assert refusal(path).startswith(
        f"{path}, line 1, which names the fields: there is no field 'text' (fields: id,"
    )
    assert "did you mean 'story'?" in refusal(path, text_field="storys")
    assert "line 1: not a text file" in refusal(write(path, b"id,caf\xe9\n1,2\n"))


@pytest.mark.parametrize(
    ("name", "header", "wanted"),
    [
        ("a.csv", "id;text", "a comma (of a .tsv file it is a tab)"),
        ("a.csv", "id\ttext", "a comma (of a .tsv file it is a tab)"),
        ("a.tsv", "id,text", "a tab"),
    ],
)
def test_a_table_with_another_delimiter(tmp_path: Path, name: str, header: str, wanted: str) -> None:
    path = write(tmp_path / name, header + "\n1;one\n")
    assert f"; the delimiter of this file must be {wanted}: write it again, or rename it" in refusal(path)
    assert "delimiter" not in refusal(write(path, "story\none\n"))


def test_a_quotation_mark_that_is_not_closed(tmp_path: Path, block_bytes: int | None) -> None:
    path = write(tmp_path / "a.csv", 'text\none\n"two\nthree\nfour\n')
    assert refusal(path).startswith(f"{path}, line 3: a quotation mark that opens a field is not closed")


@pytest.mark.parametrize(("name", "start"), [("a.csv", 'text\n"'), ("a.json", '["one", "')])
def test_a_record_that_does_not_end_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, start: str
) -> None:
    monkeypatch.setattr("pellucid.data.sources.content.BLOCK_BYTES", 100)
    monkeypatch.setattr("pellucid.data.sources.json_values.LONGEST_BYTES", 10_000)
    monkeypatch.setattr("pellucid.data.sources.tables.LONGEST_BYTES", 10_000)
    path = write(tmp_path / name, start + "words, " * 100_000)
    assert re.match(rf"{re.escape(str(path))}, byte \d: no record ends in 1\d,\d+ bytes", refusal(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "one"}', "line 1: not JSON: the array is not closed: the file is cut off at byte 16"),
        ('[{"text": "one"},\n{"text": "tw', "line 2: not JSON: a value is not closed: the file is cut off at byte 18"),
        ('[{"text": "one"}\n{"text": "two"}]', "line 2: not JSON: wanted a comma or the end of the array at byte 17"),
        ('["one", ]', "line 1: not JSON: wanted a value at byte 8"),
        ('["one"] "two"', "line 1: not JSON: wanted nothing behind the array at byte 8"),
        ('{"text": "one"},{"text": "two"}', "line 1: not JSON: wanted a value at byte 15"),
        ('{"text": "one"}\n}', "line 2: not JSON: wanted a value at byte 16"),
        ('["one', "line 1: not JSON: a value is not closed: the file is cut off at byte 1"),
    ],
)  # fmt: skip
def test_json_whose_values_cannot_be_told_apart(
    tmp_path: Path, content: str, message: str, block_bytes: int | None
) -> None:
    path = write(tmp_path / "a.json", content)
    said = refusal(path)
    assert said.startswith(f"{path}, {message}, so that the rest of the file cannot be read"), said


def test_a_line_of_50_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = "long words " * 4_600_000
    path.write_text('{"text": "one"}\n{"text": "' + long + '"}\n{"text": "two"}\n')
    assert [d.text for d in documents(open_source(path))] == ["one", long, "two"]
    assert [d.text for p in open_source(path).portions(10_000_000) for b in open_source(path).portion_blocks(p)
            for d in documents_of(b)] == ["one", long, "two"]  # fmt: skip


def documents_of(block):
    from pellucid.data.sources import Faults

    return block.documents(Faults("strict"))


# Libraries


@pytest.mark.parametrize(
    ("library", "name"), [("zstandard", "a.txt.zst"), ("pyarrow", "a.parquet")], ids=["zstandard", "pyarrow"]
)
def test_a_library_that_is_missing_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingLibraryError, match=rf"{library}, .*pip install 'pellucid\[data\]'"):
        open_source(write(tmp_path / name, b"x"))


def test_plain_files_load_no_optional_library() -> None:
    program = (
        "import sys; from pellucid.data.sources import open_source, documents; "
        "list(documents(open_source('builtin:shakespeare'))); "
        "print([n for n in ('pyarrow', 'zstandard', 'torch', 'huggingface_hub') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
