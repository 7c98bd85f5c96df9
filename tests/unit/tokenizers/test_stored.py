import json
from pathlib import Path

import pytest

from pellucid.errors import StorageError, TokenizerError
from pellucid.tokenizers import ByteTokenizer, CharTokenizer, build, load


def change(directory: Path, **changes: object) -> None:
    path = directory / "pellucid.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_the_file_can_be_read_by_others(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("\naé", ["<pad>"])
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "pellucid.json").read_text(encoding="utf-8")) == {
        "format": 1,
        "tokenizer": {"kind": "char", "special_tokens": ["<pad>"], "alphabet": "\naé"},
        "fingerprint": tokenizer.fingerprint,
    }


def test_directories_are_made(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "a" / "b")
    assert load(tmp_path / "a" / "b").kind == "byte"


def test_fewer_ranks_are_remembered(tmp_path: Path) -> None:
    build({"kind": "gpt2", "max_ranks": 300}).save(tmp_path)
    assert load(tmp_path).vocab_size == 301


def test_a_file_in_the_way_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="in the way"):
        ByteTokenizer().save(tmp_path / "file")


def test_nothing_saved_here(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"pellucid\.json: no tokenizer can be read here"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b'{"format": 1, "tok', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "needs the keys"),
        (b'{"format": 1, "tokenizer": "byte", "fingerprint": "0"}', "needs the keys"),
        (b'{"format": 1, "tokenizer": {"kind": "byte"}}', "needs the keys"),
        (b'{"tokenizer": {"kind": "byte"}, "fingerprint": "0"}', "needs the keys"),
        (b'{"format": 2}', "in format 2, of a later version"),
        (b'{"format": 1, "tokenizer": {"kind": "bite"}, "fingerprint": "0"}', "did you mean 'byte'"),
        (b'{"format": 1, "tokenizer": {"kind": "char"}, "fingerprint": "0"}', "give it a corpus"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "pellucid.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"pellucid\.json: .*{message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    "altered",
    [
        {"kind": "char", "alphabet": "ba"},
        {"kind": "char", "alphabet": "abc"},
        {"kind": "char", "alphabet": "ab", "special_tokens": ["<pad>"]},
        {"kind": "byte"},
    ],
)
def test_an_altered_tokenizer_is_refused(tmp_path: Path, altered: dict[str, object]) -> None:
    CharTokenizer("ab").save(tmp_path)
    change(tmp_path, tokenizer=altered)
    with pytest.raises(TokenizerError, match=r"altered, or written by another version .* fingerprint"):
        load(tmp_path)


def test_an_altered_fingerprint_is_refused(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path)
    change(tmp_path, fingerprint="0" * 64)
    with pytest.raises(TokenizerError, match=r"altered, or written by another version"):
        load(tmp_path)
