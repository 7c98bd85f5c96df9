import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".xz": lzma.compress,
}


def _table(texts: Sequence[str], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    rows = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    rows.writerow(["id", "text"])
    rows.writerows(enumerate(texts))
    return out.getvalue().encode()


def encode(texts: Sequence[str], suffix: str) -> bytes:
    """The texts as a file of this kind, in which markers stand between the documents of a text file."""
    objects = [{"id": number, "text": text} for number, text in enumerate(texts)]
    match suffix:
        case ".txt" | ".md":
            return "<|endoftext|>".join(texts).encode()
        case ".jsonl" | ".ndjson":
            return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects).encode()
        case ".json":
            return json.dumps(objects, indent=1).encode()
        case ".csv":
            return _table(texts, ",")
        case ".tsv":
            return _table(texts, "\t")
    raise AssertionError(suffix)


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Writes texts as a file of the kind that its name says."""

    def write(texts: Sequence[str], name: str, rows_a_group: int = 7) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            table = pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())})
            pq.write_table(table, path, row_group_size=rows_a_group)
            return path
        compression = path.suffix if path.suffix in COMPRESS else ""
        suffix = Path(path.name.removesuffix(compression)).suffix
        path.write_bytes(COMPRESS[compression](encode(texts, suffix)))
        return path

    return write


@pytest.fixture(params=[1, 50, 1000, None])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Blocks of about so many bytes; None: as they are by default."""
    if request.param is not None:
        for name in ("content.BLOCK_BYTES", "text.PIECE_BYTES", "parquet.BLOCK_BYTES"):
            monkeypatch.setattr(f"pellucid.data.sources.{name}", request.param)
    return request.param
