"""Every format, plain and compressed: the same documents, however they are cut into blocks and parts."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.data.sources import Faults, Place, Source, documents, open_source, parquet
from pellucid.data.sources.base import START

TEXTS = [
    "one\ntwo, three",
    "said: \"'x'\" and \\ {[",
    "café ☃ 😀\r\nx",
    " spaces ]}, ",
    "\ttab\t",
    '"quoted, text"\n\n"more"',
    "a" * 300,
    "\u2028 and \x85 and \x1c",
]
TEXTS += [f"text number {number} {'of these ' * (number % 11)}\nend" for number in range(60)]
KINDS = [
    *(suffix + packed for suffix in (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
      for packed in ("", ".gz", ".zst", ".xz")),
    ".parquet",
]  # fmt: skip
MARKER = "<|endoftext|>"

Stored = Callable[..., Path]


def opened(path: Path) -> Source:
    return open_source(path, document_marker=MARKER)


def read(source: Source, start: Place = START) -> list[tuple[str, str]]:
    """(text, where) of the documents from a block on, each read as another process would."""
    blocks = (pickle.loads(pickle.dumps(block)) for block in source.blocks(start))
    return [(d.text, d.where) for block in blocks for d in block.documents(Faults("strict"))]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_come_back_from_every_kind_whatever_the_blocks(
    stored: Stored, kind: str, block_bytes: int | None
) -> None:
    path = stored(TEXTS, f"texts{kind}")
    source = opened(path)
    found = read(source)
    assert [text for text, _ in found] == TEXTS
    assert len({where for _, where in found}) == len(TEXTS)
    assert all(where.startswith(str(path)) for _, where in found)
    assert sum(block.source_bytes for block in source.blocks()) <= source.size_bytes == path.stat().st_size
    if block_bytes == 1:
        assert len(list(source.blocks())) > len(TEXTS) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_document_stands_does_not_depend_on_blocks(
    stored: Stored, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(stored(TEXTS, f"texts{kind}"))
    at_once = read(source)
    for name in ("content.BLOCK_BYTES", "parquet.BLOCK_BYTES"):
        monkeypatch.setattr(f"pellucid.data.sources.{name}", 100)
    assert read(source) == at_once


@pytest.mark.parametrize(
    "block_bytes",
    [pytest.param(1, marks=pytest.mark.slow), 400],
    indirect=True,  # a block a document, or some
)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_goes_on_at_every_block(stored: Stored, kind: str, block_bytes: int) -> None:
    source = open_source(stored(TEXTS, f"a{kind}"), stored(TEXTS[::-1], f"b{kind}"), document_marker=MARKER)
    blocks = list(source.blocks())
    assert [block.begin for block in blocks[1:]] == [block.end for block in blocks[:-1]]
    assert (blocks[0].begin, blocks[-1].end) == (Place(0, 0), Place(2, 0))
    faults = Faults("strict")
    expected: list[tuple[str, str]] = []
    for block in reversed(blocks):
        expected = [(d.text, d.where) for d in block.documents(faults)] + expected
        assert read(source, block.begin) == expected
    assert read(source, blocks[-1].end) == []


@pytest.mark.parametrize("block_bytes", [50, None], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.count(".") == 1] + [".jsonl.gz"])
@pytest.mark.parametrize("portion_bytes", [1, 13, 999, 10**9])
def test_portions_hold_every_document_once_in_order(
    stored: Stored, kind: str, portion_bytes: int, block_bytes: int | None
) -> None:
    source = open_source(stored(TEXTS, f"a{kind}"), stored(TEXTS[:9], f"b{kind}"), document_marker=MARKER)
    portions = source.portions(portion_bytes)
    found = [
        document.text
        for portion in portions
        for block in source.portion_blocks(portion)
        for document in block.documents(Faults("strict"))
    ]
    assert found == TEXTS + TEXTS[:9]
    can_be_cut = kind in {".txt", ".md", ".jsonl", ".ndjson", ".parquet"}
    sizes = [file.size_bytes for file in source.record().files]
    assert len(portions) == (sum(-(-size // portion_bytes) for size in sizes) if can_be_cut else 2)


def test_the_blocks_of_a_plain_file_do_not_carry_it(stored: Stored) -> None:
    for kind in (".jsonl", ".txt", ".json", ".csv", ".parquet"):
        (block,) = opened(stored(["text " * 10_000], f"a{kind}")).blocks()
        assert len(pickle.dumps(block)) < 5_000


def test_a_row_group_that_is_large_comes_in_slices_that_carry_their_own_values(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{number:04d}" * 25 for number in range(1000)]
    source = opened(stored(texts, "a.parquet", rows_a_group=1000))
    monkeypatch.setattr("pellucid.data.sources.parquet.BLOCK_BYTES", 10_000)
    blocks = list(source.blocks())
    assert len(blocks) > 8
    sizes = [len(pickle.dumps(block)) for block in blocks]
    assert sum(sizes) < 3 * 100_000
    assert [d.text for block in blocks for d in block.documents(Faults("strict"))] == texts


def test_one_row_group_that_is_small_is_named_and_read_later(stored: Stored) -> None:
    path = stored(["one"] * 20, "a.parquet")
    blocks = list(opened(path).blocks())
    assert [block.end.position for block in blocks] == [7, 14, 0]
    assert len(pickle.dumps(blocks)) < 5_000
    path.unlink()
    with pytest.raises(Exception, match=r"a\.parquet: cannot be read: No such file"):
        list(blocks[0].documents(Faults("strict")))


# What the formats allow ---------------------------------------------------------------------------------


def texts_of(path: Path, content: bytes | str, **options: object) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [document.text for document in documents(open_source(path, **options))]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "one"}, {"text": "two"}]',
        '["one", "two"]',
        '{"text": "one"}{"text": "two"}',
        '\ufeff \n{"text": "one",\n"more": [{"}": ["]"]}]}\n\n{"text": "two"}\n',
        '\ufeff[\n "one" ,\n {"a": "\\"]", "text": "two"} ]\n ',
    ],
)
def test_json_is_an_array_or_objects_one_after_the_other(
    tmp_path: Path, content: str, block_bytes: int | None
) -> None:
    assert texts_of(tmp_path / "a.json", content) == ["one", "two"]


def test_json_can_be_one_object_or_an_empty_array(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "a.json", '{\n "text": "one\\ud83d\\ude00"\n}') == ["one😀"]
    assert texts_of(tmp_path / "b.json", " [ ] ") == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_is_read_as_the_csv_module_reads_it(
    tmp_path: Path, line_end: str, block_bytes: int | None
) -> None:
    lines = ["\ufeffid,text,more", '1,"a ""b"", c",', f'2,"x{line_end}y",z', "", '3,5" pipe,"q"', '4,"a"b",c']
    content = line_end.join(lines)
    assert texts_of(tmp_path / "a.csv", content) == ['a "b", c', f"x{line_end}y", '5" pipe', 'ab"']


def test_a_quoted_header_and_a_long_field(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    assert texts_of(tmp_path / "a.csv", f'"the\ntext",id\n{long},1\n', text_field="the\ntext") == [long]
    assert texts_of(tmp_path / "b.csv", '\ufeff"text"\n"one"\n') == ["one"]


def test_where_a_row_stands(tmp_path: Path, block_bytes: int | None) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"a\nb"\n\nc\n"d"\n')
    assert [d.where for d in documents(open_source(path))] == [f"{path}, line {line}" for line in (2, 5, 6)]


def test_parquet_columns_of_other_types_that_hold_text(tmp_path: Path, block_bytes: int | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = ["one", "", "zwei ☃", "one", "longer than a view has room for"]
    for number, kind in enumerate(
        [
            pa.large_string(),
            pa.binary(),
            pa.large_binary(),
            pa.dictionary(pa.int32(), pa.string()),
            pa.string_view(),
            pa.binary_view(),
        ]
    ):
        encoded = [value.encode() for value in values] if "binary" in str(kind) else values
        path = tmp_path / f"{number}.parquet"
        pq.write_table(
            pa.table(
                {"text": pa.array(encoded, pa.binary() if encoded[0] == b"one" else pa.string()).cast(kind)}
            ),
            path,
        )
        assert [d.text for d in documents(open_source(path))] == [v for v in values if v], kind


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "string_view", "binary_view"])
def test_the_values_of_a_part_of_an_arrow_array(kind: str) -> None:
    import pyarrow as pa

    values = pa.array(["zero", "one", None, "☃", "", "five"]).cast(kind)
    assert list(parquet._strings(values.slice(1, 4))) == ["one", None, "☃", ""]
    assert list(parquet._strings(values.slice(3))) == ["☃", "", "five"]
    assert list(parquet._strings(values.slice(2, 0))) == []
    assert list(parquet._strings(pa.array([], kind))) == []


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_pairs_come_from_every_kind_of_record(stored: Stored, tmp_path: Path, kind: str) -> None:
    path = stored(["one", "two"], f"a{kind}")
    if kind == ".csv":
        source = open_source(path, pair_fields=("text", "id"))
        assert [(d.text, d.target) for d in documents(source)] == [("one", "0"), ("two", "1")]
    source = open_source(path, pair_fields=("text", "text"))
    assert [(d.text, d.target) for d in documents(source)] == [("one", "one"), ("two", "two")]
    assert source.record().text_field is None


def test_strings_of_an_array_are_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match="wanted a JSON object with a field 'q' and a field 'a', not a string"
    ):
        texts_of(tmp_path / "a.json", '["one"]', pair_fields=("q", "a"))


@pytest.mark.parametrize("kind", [".jsonl", ".txt"])
def test_a_document_belongs_to_the_part_in_which_its_first_byte_lies(stored: Stored, kind: str) -> None:
    source = opened(stored(TEXTS, f"a{kind}"))
    for portion_bytes in (1, 7, 64, 500):
        for portion in source.portions(portion_bytes):
            for block in source.portion_blocks(portion):
                for document in block.documents(Faults("strict")):
                    byte = int(document.where.rpartition(" ")[2].replace(",", ""))
                    assert portion.part * source.size_bytes // portion.parts <= byte
                    assert byte < (portion.part + 1) * source.size_bytes // portion.parts
