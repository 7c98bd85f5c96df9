"""What holds for any text in any format: it comes back, however it is cut into blocks and parts."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pellucid.data.sources import Document, Faults, Source, open_source
from pellucid.data.sources.base import START, Place
from pellucid.errors import DataError

TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r",<|>\\{}[]\t\ufeff é☃😀'), max_size=40
)
TEXTS = st.lists(TEXT.map(lambda text: text.replace("\0", "")), min_size=1, max_size=12)
SIZES = st.integers(1, 200)


@contextmanager
def opened(content: bytes, suffix: str, block_bytes: int, **options: object) -> Iterator[Source]:
    """A file with this content, as a source with blocks of this size."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("content.BLOCK_BYTES", "text.PIECE_BYTES"):
            patch.setattr(f"pellucid.data.sources.{name}", block_bytes)
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        yield open_source(path, **options)


def read(source: Source, start: Place = START) -> list[Document]:
    return [d for block in source.blocks(start) for d in block.documents(Faults(source.reading.errors))]


def agree(
    content: bytes, suffix: str, sizes: tuple[int, int], wanted: Sequence[str], **options: object
) -> None:
    """What is read is what is wanted: in blocks of any size, from any block on, and in parts."""
    block_bytes, portion_bytes = sizes
    with opened(content, suffix, block_bytes, **options) as source:
        found = read(source)
        assert [document.text for document in found] == list(wanted)
        done = 0
        for block in source.blocks():
            if done % 3 == 0:
                assert read(source, block.begin) == found[done:]
            done += len(list(block.documents(Faults(source.reading.errors))))
        in_parts = [
            document
            for portion in source.portions(portion_bytes)
            for block in source.portion_blocks(portion)
            for document in block.documents(Faults(source.reading.errors))
        ]
        assert in_parts == found


@settings(deadline=None)  # files
@given(TEXTS, st.tuples(SIZES, SIZES), st.booleans())
def test_json_lines(texts: list[str], sizes: tuple[int, int], ascii_only: bool) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    agree("\n".join(lines).encode(), ".jsonl", sizes, [text for text in texts if text])


@settings(deadline=None)  # files
@given(TEXTS, st.tuples(SIZES, SIZES), st.booleans(), st.sampled_from([None, 1]))
def test_json(texts: list[str], sizes: tuple[int, int], ascii_only: bool, indent: int | None) -> None:
    wanted = [text for text in texts if text]
    for values in (texts, [{"a": [text, {}], "text": text} for text in texts]):
        array = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
        agree(array.encode(), ".json", sizes, wanted)
    objects = "\n".join(json.dumps({"text": text}, ensure_ascii=ascii_only, indent=indent) for text in texts)
    agree(objects.encode(), ".json", sizes, wanted)


@settings(deadline=None)  # files
@given(TEXTS, st.tuples(SIZES, SIZES), st.sampled_from(["\n", "\r\n"]), st.sampled_from([0, 1]))
def test_csv_that_is_written_by_the_csv_module(
    texts: list[str], sizes: tuple[int, int], line_end: str, quoting: int
) -> None:
    out = io.StringIO(newline="")
    if any("\r" in text for text in texts):  # which the module leaves bare
        quoting = csv.QUOTE_ALL
    rows = csv.writer(out, lineterminator=line_end, quoting=quoting)
    rows.writerows([["text", "more"], *([text, "x"] for text in texts)])
    agree(out.getvalue().encode(), ".csv", sizes, [text for text in texts if text])


@settings(deadline=None)  # files
@given(st.text(st.sampled_from('ab",\n\r☃'), max_size=120), st.tuples(SIZES, SIZES))
@example('"",\n', (1, 1))
def test_any_csv_is_cut_where_the_csv_module_ends_rows(body: str, sizes: tuple[int, int]) -> None:
    content = f"text,b,c,d,e,f,g,h\n{body}"
    if body.count('"') % 2:
        return
    try:
        rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))[1:]
    except csv.Error:
        return
    texts = [row[0] for row in rows if 0 < len(row) <= 8]
    agree(content.encode(), ".csv", sizes, [text for text in texts if text], errors="skip")


@settings(deadline=None)  # files
@given(TEXTS, st.tuples(SIZES, SIZES), st.sampled_from(["<|endoftext|>", "\n\n", "--", "aba", "é"]))
def test_text_with_markers(texts: list[str], sizes: tuple[int, int], marker: str) -> None:
    content = marker.join(texts)
    parts = content.removeprefix("\ufeff").split(marker)
    first, last = parts[0].rstrip("\r\n"), parts[-1].lstrip("\r\n")
    wanted = [first, *(part.strip("\r\n") for part in parts[1:-1]), last]
    if len(parts) == 1:
        wanted = parts
    agree(content.encode() or b"\n", ".txt", sizes, [text for text in wanted if text] if content else ["\n"],
          document_marker=marker)  # fmt: skip


@settings(deadline=None)  # files
@given(st.lists(TEXT, min_size=1, max_size=30).map("".join), SIZES)
def test_the_pieces_of_a_running_text(text: str, piece_bytes: int) -> None:
    text = text.replace("\0", "")
    if not text.removeprefix("\ufeff"):
        return
    with opened(text.encode(), ".txt", piece_bytes) as source:
        found = read(source)
        whole = text.removeprefix("\ufeff")
        assert "".join(piece.text for piece in found) == whole
        for number, (piece, block) in enumerate(zip(found, source.blocks(), strict=True)):
            assert whole[piece.first_character :].startswith(piece.text)
            assert read(source, block.begin) == found[number:]


@settings(deadline=None)  # files
@given(st.binary(min_size=1, max_size=200), SIZES, st.sampled_from([".jsonl", ".csv", ".json"]))
def test_any_bytes_end_in_documents_or_in_a_clear_error(data: bytes, block_bytes: int, suffix: str) -> None:
    for errors in ("strict", "replace", "skip"):
        content = b'text\n"text"\n' + data
        with opened(content, suffix, block_bytes, errors=errors) as source, suppress(DataError):
            assert all(document.text for document in read(source))


@settings(deadline=None)  # files
@given(st.binary(min_size=1, max_size=100), SIZES)
def test_bytes_that_are_replaced(data: bytes, block_bytes: int) -> None:
    wanted = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").replace("\0", "\ufffd")
    if wanted:
        with opened(data, ".txt", block_bytes, errors="replace") as source:
            assert "".join(document.text for document in read(source)) == wanted
