"""Text files: running text in pieces, markers, and what is warned of."""

import gzip
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.data.encoding import pieces
from pellucid.data.sources import Document, Faults, characters, documents, open_source
from pellucid.data.sources.content import Separator
from pellucid.data.sources.stored import LocalFile
from pellucid.data.sources.text import PIECE_BYTES, WORD_END
from pellucid.errors import ConfigError, DataError

WORDS = ["word", "wörter", "日本語", "_under_", "end.", "😀", "x" * 40, "5", "\u2028", "\xa0", "\n\n", "..."]


def running_text(length: int) -> str:
    draw = random.Random(0)
    return "".join(draw.choice([*WORDS, " ", "\n", "\r\n"]) for _ in range(length))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def pieces_of(path: Path, **options: object) -> list[Document]:
    source = open_source(path, **options)
    assert source.is_single_text
    return list(documents(source))


# Running text


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_the_pieces_of_a_running_text_are_the_text_and_end_with_words(
    tmp_path: Path, name: str, bom: str, block_bytes: int | None
) -> None:
    text = running_text(3000)
    content = (bom + text).encode()
    path = write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    found = pieces_of(path)
    assert "".join(piece.text for piece in found) == text
    done = 0
    for piece in found:
        assert piece.first_character == done
        assert done == 0 or WORD_END.match(text, done)
        done += len(piece.text)
    assert characters(open_source(path)) == len(text)
    assert len(found) == 1 or block_bytes is not None


def test_pieces_are_of_about_their_size_and_are_cut_where_encoding_cuts(tmp_path: Path) -> None:
    text = "some words, here.\n" * 500_000
    found = [piece.text for piece in pieces_of(write(tmp_path / "a.txt", text))]
    assert len(found) == 5
    assert all(PIECE_BYTES <= len(piece) <= PIECE_BYTES + 16 for piece in found[:-1])
    assert found == list(pieces(text, 0, len(text), PIECE_BYTES))


@pytest.mark.parametrize("block_bytes", [1, 50], indirect=True)
@pytest.mark.parametrize("packed", [False, True])
def test_reading_a_running_text_goes_on_at_every_piece(
    tmp_path: Path, packed: bool, block_bytes: int
) -> None:
    content = ("\ufeff" + running_text(300)).encode()
    path = write(
        tmp_path / ("a.txt.gz" if packed else "a.txt"), gzip.compress(content) if packed else content
    )
    source = open_source(path)
    expected = list(documents(source))
    assert len(expected) > 9
    for number, block in enumerate(source.blocks()):
        rest = [d for later in source.blocks(block.begin) for d in later.documents(Faults("strict"))]
        assert rest == expected[number:]


def test_a_piece_grows_where_no_word_ends(tmp_path: Path) -> None:
    text = "日" * 2_000_000 + " end"
    assert [len(piece.text) for piece in pieces_of(write(tmp_path / "a.txt", text))] == [2_000_000, 4]


def test_a_running_text_can_be_had_whole(tmp_path: Path, block_bytes: int | None) -> None:
    text = running_text(1000)
    for path in (
        write(tmp_path / "a.txt", "\ufeff" + text),
        write(tmp_path / "b.txt.gz", gzip.compress(text.encode())),
    ):
        (block,) = open_source(path).blocks(whole=True)
        assert [d.text for d in block.documents(Faults("strict"))] == [text]


def test_in_a_collection_a_text_file_is_one_document(tmp_path: Path, block_bytes: int | None) -> None:
    text = running_text(1000)
    first = write(tmp_path / "a.md", text)
    second = write(tmp_path / "b.txt.gz", gzip.compress(text.encode()))
    for source in (open_source(tmp_path), open_source(first, second)):
        assert not source.is_single_text
        assert [d.text for d in documents(source)] == [text, text]
        assert [d.text for p in source.portions(10) for b in source.portion_blocks(p)
                for d in b.documents(Faults("strict"))] == [text, text]  # fmt: skip


def test_a_large_running_text_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        for _ in range(200):
            file.write("some words of text, again\n" * 40_000)  # 1 MB
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    program = """
import resource, sys
from pellucid.data.sources import characters, open_source
open_source(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert characters(open_source(sys.argv[2])) == 200 * 40_000 * 26
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    for name in (path, packed):
        words = [sys.executable, "-c", program, str(path), str(name)]
        grown_kib = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        assert grown_kib < 60_000, name


def test_of_a_running_text_nothing_can_be_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"caf\xe9 \0 au lait")
    with pytest.raises(ConfigError, match="nothing can be left out but all of it; choose strict or replace"):
        open_source(path, errors="skip")
    with pytest.raises(ConfigError, match="nothing can be left out"):
        open_source("builtin:shakespeare", errors="skip")
    faults = Faults("replace")
    assert [d.text for d in documents(open_source(path, errors="replace"), faults)] == [
        "caf\ufffd \ufffd au lait"
    ]
    assert faults.counts == {"not UTF-8 (replaced)": 1}
    with pytest.raises(DataError, match=r"byte 3 is 0xe9, not UTF-8; .* --errors replace$"):
        pieces_of(path)


def test_replacing_leaves_the_count_of_characters_right(tmp_path: Path, block_bytes: int | None) -> None:
    content = b"caf\xe9 au \xf0\x9f\x98 lait " * 40
    found = pieces_of(write(tmp_path / "a.txt", content), errors="replace")
    assert "".join(piece.text for piece in found) == content.decode(errors="replace")
    assert [piece.first_character for piece in found[1:]] == [
        piece.first_character + len(piece.text) for piece in found[:-1]
    ]


def test_the_byte_of_a_fault_is_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.data.sources.text.PIECE_BYTES", 100)
    path = write(tmp_path / "a.txt", b"word " * 100 + b"\xff")
    with pytest.raises(DataError, match="byte 500 is 0xff"):
        pieces_of(path)


# Markers


def marked(path: Path, text: str | bytes, marker: str = "<|endoftext|>") -> tuple[list[str], Faults]:
    faults = Faults("strict")
    source = open_source(write(path, text), document_marker=marker)
    assert not source.is_single_text
    return [document.text for document in documents(source, faults)], faults


def test_documents_stand_between_markers(tmp_path: Path, block_bytes: int | None) -> None:
    text = "\ufeff\none\n<|endoftext|>\r\n two \n\n<|endoftext|><|endoftext|>\n\n<|endoftext|>three\n\n"
    found, faults = marked(tmp_path / "a.txt", text)
    assert found == ["\none", " two ", "three\n\n"]
    assert faults.counts == {"empty": 2}
    assert "a.txt, byte " in faults.first["empty"]


@pytest.mark.parametrize("end", ["", "<|endoftext|>", "\n<|endoftext|>\n", "\n<|endoftext|>\r\n\n"])
def test_behind_the_last_marker_there_may_be_nothing(
    tmp_path: Path, end: str, block_bytes: int | None
) -> None:
    found, faults = marked(tmp_path / "a.txt", f"one<|endoftext|>two{end}")
    assert found == ["one", "two"]
    assert not faults.counts


@pytest.mark.parametrize("marker", ["---", "\n\n", "abab", "☃☃"])
def test_a_marker_that_overlaps_itself(tmp_path: Path, marker: str, block_bytes: int | None) -> None:
    text = "".join(
        f"{number} text{marker * (number % 4)}{marker[:-1] * (number % 3)}x" for number in range(40)
    )
    found, _ = marked(tmp_path / "a.txt", text, marker)
    parts = [part.strip("\r\n") for part in text.split(marker)]
    assert found == [part for part in parts if part]
    assert len(open_source(tmp_path / "a.txt", document_marker=marker).portions(10)) == 1


def test_a_marker_at_the_border_of_what_is_read_at_once(tmp_path: Path) -> None:
    marker = Separator(b"<|endoftext|>")
    for before in range((1 << 16) - 20, (1 << 16) + 20):
        path = write(tmp_path / "a.txt", "x" * before + "<|endoftext|>y")
        file = LocalFile(path, "a.txt", str(path), path.stat().st_size)
        border = before + 13
        positions = (1, 30, before, border - 1, border, border + 1)
        assert [marker.find_in(file, p) for p in positions] == [border] * 5 + [border + 1]


def test_faults_between_markers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one|caf\xe9|two|\0|three")
    with pytest.raises(
        DataError, match=r"a\.txt: not a text file: byte 7 is 0xe9, not UTF-8; .*--errors skip"
    ):
        list(documents(open_source(path, document_marker="|")))
    faults = Faults("skip")
    source = open_source(path, document_marker="|", errors="skip")
    assert [d.text for d in documents(source, faults)] == ["one", "two", "three"]
    assert faults.counts == {"not UTF-8": 1, "NUL byte": 1}
    assert faults.first["not UTF-8"] == f"{path}, byte 4"


def test_the_marker_is_recorded_where_there_is_text(tmp_path: Path) -> None:
    text, lines = write(tmp_path / "a.txt", "one|two"), write(tmp_path / "b.jsonl", '{"text": "three"}')
    assert open_source(text, document_marker="|").record().document_marker == "|"
    assert open_source(lines, document_marker="|").record().document_marker is None
    assert open_source(lines, text, document_marker="|").record().document_marker == "|"
    with pytest.raises(ConfigError, match=r"data\.document_marker: .* not an empty string"):
        open_source(text, document_marker="")


def test_a_marker_that_nobody_named_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.txt", "b.txt"):
        write(tmp_path / name, "one<|endoftext|>two")
    source = open_source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(list(documents(source))) == 2
        list(documents(source))
    (record,) = caplog.records
    assert "a.txt: <|endoftext|> is read as text" in record.getMessage()
    assert "data.document_marker" in record.getMessage()
    assert "--document-marker" in record.getMessage()
    caplog.clear()
    list(documents(open_source(tmp_path, document_marker="<|endoftext|>")))
    assert not caplog.records
