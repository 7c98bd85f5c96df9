"""What is wrong with a document: an error that says where, or counted by reason, never silent."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pellucid.data.sources import Errors, Faults, documents, open_source
from pellucid.errors import DataError

LINES = (
    b'{"text": "one"}',
    b'{"text": "caf\xe9"}',
    b'{"text": "\0x"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\uDC00 "}',
    b'{"text": ',
    b"[1]",
    b"17",
    b'{"story": "x"}',
    b'{"text": 5}',
    b'{"text": null}',
    b'{"text": ""}',
    b"",
    b'{"text": "two"}',
)
REASONS = {
    "not UTF-8": 1,
    "NUL byte": 1,
    "half a surrogate pair": 2,
    "not JSON": 1,
    "not an object": 2,
    "no such field": 1,
    "not a string": 1,
    "no text": 1,
    "empty": 1,
}


def read(path: Path, errors: Errors, **options: object) -> tuple[list[str], Faults]:
    faults = Faults(errors)
    source = open_source(path, errors=errors, **options)
    assert source.record().errors == errors
    return [document.text for document in documents(source, faults)], faults


def refusal(path: Path, errors: Errors = "strict") -> str:
    with pytest.raises(DataError) as caught:
        read(path, errors)
    return str(caught.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_lines_with_faults_are_left_out_and_counted(tmp_path: Path, block_bytes: int | None) -> None:
    path = write(tmp_path / "a.jsonl", b"\n".join(LINES))
    texts, faults = read(path, "skip")
    assert texts == ["one", "two"]
    assert faults.counts == REASONS
    assert faults.first["not UTF-8"] == f"{path}, byte 16"
    assert faults.first["not an object"] == f"{path}, byte {len(b'-'.join(LINES[:6])) + 1:,}"


def test_values_with_faults_are_left_out_and_counted(tmp_path: Path, block_bytes: int | None) -> None:
    values = [line for line in LINES if line not in {b"", b'{"text": '}]
    texts, faults = read(write(tmp_path / "a.json", b"[" + b",\n".join(values) + b"]"), "skip")
    assert texts == ["one", "two"]
    assert faults.counts == {reason: count for reason, count in REASONS.items() if reason != "not JSON"}
    texts, faults = read(write(tmp_path / "b.json", b'{"text": "one"} {"text" 5} {"text": "two"}'), "skip")
    assert texts == ["one", "two"]
    assert faults.counts == {"not JSON": 1}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1, "line 2: not a text file: byte 29 is 0xe9, not UTF-8; convert it to UTF-8 text, or have"),
        (2, "line 2: not a text file: byte 26 is 0x00, a NUL"),
        (3, "line 2: field 'text' holds half of a surrogate pair"),
        (5, "line 2: not JSON: Expecting value at column 10"),
        (6, "line 2: wanted a JSON object with a field 'text', not an array"),
        (
            8,
            "line 2: there is no field 'text' (fields: story); name the field that holds the text with data.text",
        ),
        (9, "line 2: field 'text' holds a number, not a string"),
        (10, "line 2: field 'text' holds null, not a string"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_fault_is_an_error_that_says_where_and_how_to_go_on(
    tmp_path: Path, number: int, message: str, name: str, block_bytes: int | None
) -> None:
    import gzip

    content = LINES[0] + b"\n" + LINES[number] + b"\n"
    path = write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    said = refusal(path)
    assert said.startswith(f"{path}, {message}"), said
    assert said.endswith("(or leave such documents out with data.errors=skip, --errors skip)")
    if number > 2:
        assert refusal(path, "replace") == said


def test_a_fault_in_json_says_the_line_and_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[\n{"text": "é"},\n{"text" 5}]'.encode())
    assert refusal(path).startswith(f"{path}, line 3: not JSON: Expecting ':' delimiter at byte 26; correct")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_bytes_that_are_no_text_are_replaced_and_counted(tmp_path: Path, name: str) -> None:
    bad = (b"caf\xe9", b"\0x", b"fine")
    content = {
        "a.jsonl": b"\n".join(b'{"text": "%s"}' % text for text in bad),
        "a.json": b"[" + b",".join(b'"%s"' % text for text in bad) + b"]",
        "a.csv": b"text\n" + b"\n".join(bad),
        "a.txt": b"|".join(bad),
    }[name]
    texts, faults = read(write(tmp_path / name, content), "replace", document_marker="|")
    assert texts == ["caf\ufffd", "\ufffdx", "fine"]
    assert faults.counts == {"not UTF-8 (replaced)": 2}


def test_text_files_with_faults_in_a_folder(tmp_path: Path) -> None:
    for name, content in {"a.txt": b"one", "b.txt": b"caf\xe9", "c.md": b"\0", "d.txt": b"two"}.items():
        write(tmp_path / name, content)
    assert f"{tmp_path / 'b.txt'}: not a text file: byte 3 is 0xe9" in refusal(tmp_path)
    texts, faults = read(tmp_path, "skip")
    assert texts == ["one", "two"]
    assert faults.counts == {"not UTF-8": 1, "NUL byte": 1}
    texts, faults = read(tmp_path, "replace")
    assert texts == ["one", "caf\ufffd", "\ufffd", "two"]


# Tables

ROWS = b"id,text\n1,one\n2,caf\xe9\n3,a\0\n\xff,fine\n4\n5,x,y\n6,\n7,two\n"


def test_rows_with_faults_are_left_out_and_counted(tmp_path: Path, block_bytes: int | None) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    texts, faults = read(path, "skip")
    assert texts == ["one", "two"]
    assert faults.counts == {
        "not UTF-8": 2,
        "NUL byte": 1,
        "no such field": 1,
        "too many fields": 1,
        "empty": 1,
    }
    assert faults.first["not UTF-8"] == f"{path}, line 3"
    assert faults.first["empty"] == f"{path}, line 8"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"2,caf\xe9", "line 3: not a text file: byte 19 is 0xe9, not UTF-8"),
        (b"2,a\0", "line 3: not a text file: byte 17 is 0x00, a NUL"),
        (b"2", "line 3: 1 of the 2 fields that the header names; complete the line, or remove it"),
        (b"2,x,y", "line 3: 3 fields where the header names 2; quote fields that hold the delimiter ','"),
    ],
)
def test_a_row_with_a_fault_is_named(
    tmp_path: Path, row: bytes, message: str, block_bytes: int | None
) -> None:
    path = write(tmp_path / "a.csv", b"id,text\n1,one\n" + row + b"\n5,six\n")
    said = refusal(path)
    assert said.startswith(f"{path}, {message}"), said
    assert said.endswith("--errors skip)")


Values = list[str | bytes | None]


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[[Values], Path]:
    def write(values: Values, name: str = "a.parquet") -> Path:
        raw = [value.encode() if isinstance(value, str) else value for value in values]
        array = pa.array(raw, pa.binary())
        text = pa.StringArray.from_buffers(
            len(array), array.buffers()[1], array.buffers()[2], array.buffers()[0]
        )
        pq.write_table(pa.table({"text": text}), tmp_path / name)
        return tmp_path / name

    return write


def test_parquet_values_with_faults(parquet: Callable[[Values], Path], block_bytes: int | None) -> None:
    path = parquet(["one", None, b"caf\xe9", "", "a\0", "two ☃"])
    assert refusal(path).startswith(f"{path}, row 2: field 'text' holds null, not a string (or leave")
    texts, faults = read(path, "skip")
    assert texts == ["one", "two ☃"]
    assert faults.counts == {"no text": 1, "not UTF-8": 1, "empty": 1, "NUL byte": 1}
    assert faults.first["empty"] == f"{path}, row 4"
    path = parquet(["one", b"caf\xe9", "a\0"])
    assert f"{path}, row 2: not a text file: byte 3 is 0xe9, not UTF-8" in refusal(path)
    texts, faults = read(path, "replace")
    assert texts == ["one", "caf\ufffd", "a\ufffd"]
    assert faults.counts == {"not UTF-8 (replaced)": 2}


# Pairs


def test_half_a_pair_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"q,a\n1,2\n,3\n4,\n,\n5,6\n")
    texts, faults = read(path, "skip", pair_fields=("q", "a"))
    assert texts == ["1", "5"]
    assert faults.counts == {"half a pair": 2, "empty": 1}
    with pytest.raises(DataError, match="line 3: field 'q' is empty; a pair needs a source and a target"):
        read(path, "strict", pair_fields=("q", "a"))
