import gzip
import hashlib
import re
from pathlib import Path

import pytest

from pellucid.data.sources import Errors, Faults, builtin, documents, open_source
from pellucid.data.sources import texts as all_texts
from pellucid.errors import DataError


def texts(*paths: str | Path, **options: str) -> list[str]:
    return [document.text for document in documents(open_source(*paths, **options))]


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def fails(*paths: str | Path, **options: str) -> str:
    """The message of the DataError that reading these paths raises."""
    with pytest.raises(DataError) as caught:
        texts(*paths, **options)
    return str(caught.value)


# The built-in corpus


def test_the_built_in_corpus_is_nine_plays_as_one_text() -> None:
    source = open_source("builtin:shakespeare")
    (text,) = texts("builtin:shakespeare")
    assert source.is_single_text
    assert source.size_bytes == len(text.encode()) == 1_188_790
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert text.endswith("Let your indulgence set me free.\n")
    speakers = (
        "CORIOLANUS",
        "KING RICHARD III",
        "KING RICHARD II",
        "WARWICK",
        "ROMEO",
        "LEONTES",
        "ISABELLA",
    )
    for speaker in (*speakers, "PETRUCHIO", "PROSPERO"):
        assert f"\n{speaker}:\n" in text


def test_the_built_in_corpus_is_recorded_by_the_hash_of_its_bytes() -> None:
    source = open_source("builtin:shakespeare")
    (document,) = documents(source)
    (file,) = source.record().files
    assert file.sha256 == hashlib.sha256(document.text.encode()).hexdigest()


def test_an_unknown_built_in_corpus_names_the_nearest() -> None:
    message = fails("builtin:shakespear")
    assert "builtin:shakespear: no such built-in corpus; did you mean 'shakespeare'?" in message
    assert "there are: builtin:shakespeare" in message


def test_a_damaged_built_in_corpus_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin.resources, "files", lambda package: tmp_path)
    write(tmp_path / "corpora/shakespeare9.txt.xz", b"not xz")
    assert "cannot be read" in fails("builtin:shakespeare")
    write(tmp_path / "corpora/shakespeare9.txt.xz", builtin.lzma.compress(b"other text"))
    assert "was altered; reinstall pellucid" in fails("builtin:shakespeare")


# Files and folders


def test_one_txt_file_is_a_single_text_kept_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\r\ntwo\rthree\n\ncafe\u0301 \u2028 ☃")
    assert open_source(path).is_single_text
    assert texts(path) == ["one\r\ntwo\rthree\n\ncafe\u0301 \u2028 ☃"]


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.txt", "\ufeffone")) == ["one"]
    assert texts(write(tmp_path / "a.jsonl", '\ufeff{"text": "one"}\n{"text": "\ufefftwo"}')) == [
        "one",
        "\ufefftwo",
    ]


def test_a_line_of_jsonl_is_a_document(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"text": "one\\ntwo"}\r\n\n{"text": ""}\n{"id": 3, "text": "\\ud83d\\ude00"}'
    )
    assert not open_source(path).is_single_text
    assert texts(path) == ["one\ntwo", "😀"]
    assert [document.where for document in documents(open_source(path))] == [
        f"{path}, byte 0",
        f"{path}, byte 36",
    ]


def test_the_field_of_a_jsonl_line_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "no", "story": "yes"}\n')
    assert texts(path, text_field="story") == ["yes"]
    assert open_source(path, text_field="story").record().text_field == "story"


def test_a_folder_gives_its_text_files_in_the_order_of_their_relative_paths(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "third")
    write(tmp_path / "a/z.jsonl", '{"text": "first"}\n{"text": "second"}\n')
    write(tmp_path / "c/d/e.TXT", "fourth")
    write(tmp_path / "a/picture.png", b"\x89PNG")
    write(tmp_path / "._b.txt", b"\0\0")
    write(tmp_path / ".git/c.txt", b"\0\0")
    source = open_source(tmp_path)
    assert texts(tmp_path) == ["first", "second", "third", "fourth"]
    assert [file.name for file in source.record().files] == ["a/z.jsonl", "b.txt", "c/d/e.TXT"]
    assert not source.is_single_text
    assert sum(block.source_bytes for block in source.blocks()) == source.size_bytes


def test_a_folder_of_one_txt_file_is_a_single_text(tmp_path: Path) -> None:
    write(tmp_path / "only.txt", "text")
    assert open_source(tmp_path).is_single_text


def test_the_record_has_the_hash_and_size_of_every_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one")
    record = open_source(path).record()
    assert record.name == "a.txt"
    assert record.text_field is None
    assert [(file.name, file.size_bytes, file.sha256) for file in record.files] == [
        ("a.txt", 3, hashlib.sha256(b"one").hexdigest())
    ]


def test_several_paths_are_one_source_of_documents(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.txt", "one"), write(tmp_path / "b.jsonl", '{"text": "two"}')
    source = open_source(second, first)
    assert texts(second, first) == ["two", "one"]
    assert not source.is_single_text
    assert source.size_bytes == 3 + 15
    assert [file.name for file in source.record().files] == ["b.jsonl", "a.txt"]
    assert source.record().text_field == "text"


# Pairs


def test_a_line_can_be_a_source_and_its_target(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"q": "one", "a": "1", "id": 7}\n\n{"q": "", "a": ""}\n{"q": "two", "a": "2"}\n',
    )
    source = open_source(path, pair_fields=("q", "a"))
    assert [(d.text, d.target, d.where.rpartition(", ")[2]) for d in documents(source)] == [
        ("one", "1", "byte 0"),
        ("two", "2", "byte 52"),
    ]
    assert [d.texts for d in documents(source)] == [("one", "1"), ("two", "2")]
    assert list(all_texts(source)) == ["one", "1", "two", "2"]
    record = source.record()
    assert (record.pair_fields, record.text_field) == (("q", "a"), None)


def test_pairs_are_read_from_the_jsonl_files_of_a_folder_alone(tmp_path: Path) -> None:
    write(tmp_path / "data/README.txt", "about this data")
    write(tmp_path / "data/a.jsonl", '{"source": "one", "target": "1"}\n')
    source = open_source(tmp_path / "data", pair_fields=("source", "target"))
    assert [file.name for file in source.record().files] == ["a.jsonl"]
    joined = open_source(tmp_path / "data", tmp_path / "data/a.jsonl", pair_fields=("source", "target"))
    assert [document.target for document in documents(joined)] == ["1", "1"]
    assert joined.record().pair_fields == ("source", "target")


def test_single_texts_have_no_target_and_record_no_pair(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.jsonl", '{"text": "one"}'))
    assert [(document.target, document.texts) for document in documents(source)] == [(None, ("one",))]
    assert source.record().pair_fields is None


def test_where_there_are_no_pairs(tmp_path: Path) -> None:
    text = write(tmp_path / "only/a.txt", "text")
    for path in (text, text.parent, "builtin:shakespeare"):
        with pytest.raises(DataError, match=r"no pairs; data\.objective\.kind 'paired' reads \.jsonl files"):
            open_source(path, pair_fields=("source", "target"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"source": "x", "tgt": "y"}',
            "line 2: there is no field 'target' (fields: source, tgt); name the fields of a pair with "
            "data.objective.source_field and data.objective.target_field",
        ),
        (
            '["x", "y"]',
            "line 2: wanted a JSON object with a field 'source' and a field 'target', not an array",
        ),
        ('{"source": "x", "target": 5}', "line 2: field 'target' holds a number, not a string"),
        (
            '{"source": "x", "target": ""}',
            "line 2: field 'target' is empty; a pair needs a source and a target",
        ),
        ('{"source": "", "target": "y"}', "line 2: field 'source' is empty"),
        ('{"source": "x", "target": "\\ud800"}', "line 2: field 'target' holds half of a surrogate pair"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"source": "a", "target": "b"}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        list(documents(open_source(path, pair_fields=("source", "target"))))
    assert str(caught.value).startswith(f"{path}, {message}")


# Bad input


def test_no_path_at_all() -> None:
    with pytest.raises(DataError, match="no data: name a"):
        open_source()


def test_a_missing_path_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "stories.txt", "text")
    assert fails(tmp_path / "storys.txt").endswith(
        "storys.txt: no such file or folder; did you mean 'stories.txt'?"
    )
    assert fails(tmp_path / "no" / "such.txt").endswith("such.txt: no such file or folder")


def test_a_suffix_that_is_not_supported_says_which_are(tmp_path: Path) -> None:
    message = fails(write(tmp_path / "a.docx", b"PK"))
    assert re.search(
        r"a\.docx: a \.docx file cannot be read; convert it to a \.txt .* \.jsonl .* --format", message
    )
    assert "a .parquet.gz file cannot be read" in fails(write(tmp_path / "a.parquet.gz", b"PAR1"))
    assert "a file without a suffix" in fails(write(tmp_path / "README", b"text"))


def test_a_folder_without_text_says_what_is_there(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c/d.doc"):
        write(tmp_path / "data" / name, "text")
    (tmp_path / "empty").mkdir()
    assert "no .txt or .jsonl file in this folder (found: 2 .png, 1 .doc)" in fails(tmp_path / "data")
    assert "(found: nothing)" in fails(tmp_path / "empty")


@pytest.mark.parametrize("errors", ["strict", "replace", "skip"])
def test_in_a_collection_empty_files_are_counted(tmp_path: Path, errors: Errors) -> None:
    for name, content in {
        "a.txt": b"",
        "b.md": b"\xef\xbb\xbf",
        "c.jsonl": b"",
        "d.txt": b"one",
        "e.txt.gz": gzip.compress(b""),
        "f.jsonl.gz": gzip.compress(b""),
        "g.ndjson": b"",
    }.items():
        write(tmp_path / name, content)
    one = write(tmp_path / "elsewhere/x.txt", b"two")
    for paths, wanted in (([tmp_path], ["one", "two"]), ([tmp_path / "a.txt", one], ["two"])):
        source, faults = open_source(*paths, errors=errors), Faults(errors)
        assert [document.text for document in documents(source, faults)] == wanted
        assert faults.counts == {"empty": 6 if len(paths) == 1 else 1}
        assert faults.first == {"empty": str(tmp_path / "a.txt")}
        ends = [block.end.file for block in source.blocks()]
        assert ends == list(range(1, len(ends) + 1))
        in_parts = [d.text for p in source.portions(1) for b in source.portion_blocks(p)
                    for d in b.documents(Faults(errors))]  # fmt: skip
        assert in_parts == wanted
    marked = open_source(tmp_path, document_marker="|")
    assert [document.text for document in documents(marked)] == ["one", "two"]


@pytest.mark.parametrize("name", ["b.csv", "b.json", "b.parquet", "b.txt.gz", "b.jsonl.xz"])
def test_an_empty_file_of_a_kind_that_cannot_be_is_named_in_a_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.txt", b"text")
    empty = write(tmp_path / name, b"")
    assert f"{empty}: the file is empty; remove it" in fails(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "text")
    empty = write(tmp_path / "b.txt", b"")
    assert f"{empty}: the file is empty" in fails(empty)
    (tmp_path / "a.txt").write_bytes(b"")
    assert f"{tmp_path / 'a.txt'}: the file is empty" in fails(tmp_path)
    with pytest.raises(DataError, match=r"b\.txt: the file is empty"):
        open_source(empty, tmp_path / "a.txt")
    assert "empty but for a byte-order mark" in fails(write(tmp_path / "b.txt", "\ufeff"))


def test_a_file_that_is_not_text_is_named_with_the_offset_of_the_byte(tmp_path: Path) -> None:
    latin = write(tmp_path / "latin.txt", "caf\u00e9".encode("latin-1"))
    assert f"{latin}: not a text file: byte 3 is 0xe9, not UTF-8" in fails(latin)
    assert "byte 4 is 0x00, a NUL" in fails(write(tmp_path / "nul.txt", b"text\0text"))
    assert "byte 0 is 0xff, not UTF-8" in fails(write(tmp_path / "wide.txt", "text".encode("utf-16")))
    lines = write(tmp_path / "a.jsonl", b'{"text": "one"}\n{"text": "\xff"}\n')
    assert f"{lines}, line 2: not a text file: byte 26 is 0xff" in fails(lines)
    assert "byte 26 is 0x00, a NUL" in fails(
        write(tmp_path / "b.jsonl", b'{"text": "one"}\n{"text": "\0"}\n')
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "one"', "line 2: not JSON: Expecting ',' delimiter at column 15"),
        pytest.param("[" * 100_000, "line 2: not usable JSON", id="nested too deeply"),
        pytest.param(
            '{"text": ' + "1" * 5000 + "}",
            "line 2: not usable JSON: a number of more than 4,300 digits; shorten or remove it",
            id="a long number",
        ),
        ('["text"]', "line 2: wanted a JSON object with a field 'text', not an array"),
        ("17", "line 2: wanted a JSON object with a field 'text', not a number"),
        ('{"id": 1, "story": "x"}', "line 2: there is no field 'text' (fields: id, story)"),
        ('{"text": null}', "line 2: field 'text' holds null, not a string"),
        ('{"text": "\\ud800"}', "line 2: field 'text' holds half of a surrogate pair"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "one"}}\n{line}\n')
    assert fails(path).startswith(f"{path}, {message}")


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text")
    source = open_source(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt: cannot be read: No such file"):
        list(documents(source))
