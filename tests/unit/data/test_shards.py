import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pellucid.data.manifest import is_prepared
from pellucid.data.prepare import prepare
from pellucid.data.shards import ShardSet, ShardWriter, Split, open_shards, verify_shard
from pellucid.data.sources import open_source
from pellucid.errors import DataError
from pellucid.tokenizers import ByteTokenizer


@pytest.fixture
def directory(tmp_path: Path, jsonl: Callable[..., Path], stories: list[str]) -> Path:
    prepare(open_source(jsonl(stories)), ByteTokenizer(), tmp_path / "out", shard_tokens=400)
    return tmp_path / "out"


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit(directory: Path, **fields: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_both_sides_are_mapped_and_counted(directory: Path) -> None:
    shards = open_shards(directory)
    assert all(isinstance(shard, np.memmap) for shard in shards.train.shards)
    assert len(shards.train.shards) > 1
    assert shards.train.tokens == shards.manifest.train.tokens
    assert shards.val.tokens == shards.manifest.val.tokens
    with pytest.raises(ValueError, match="read-only"):
        shards.train.shards[0][0] = 1


def test_ids_in_memory_are_a_split_too() -> None:
    split = Split("text", (np.arange(5, dtype=np.uint32), np.arange(3, dtype=np.uint32)))
    assert split.shard_tokens == (5, 3)
    assert split.tokens == 8


def test_untouched_shards_verify(directory: Path) -> None:
    seen: list[tuple[int, int]] = []
    shards = open_shards(directory)
    shards.verify(lambda *call: seen.append(call))
    assert seen[-1] == (shards.train.tokens + shards.val.tokens,) * 2


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.starts", "val-00000.bin"])
def test_verify_names_an_altered_file(directory: Path, name: str) -> None:
    flip_a_byte(directory / name, 3)
    shards = open_shards(directory)
    with pytest.raises(
        DataError, match=rf"{name}: the file was altered: the manifest has SHA-256 .* prepare the data"
    ):
        shards.verify()


def test_a_truncated_file_is_named_with_both_sizes(directory: Path) -> None:
    path = directory / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        DataError, match=r"train-00001\.bin: the file is truncated: expected 800 bytes, found 793"
    ):
        open_shards(directory)


def test_a_file_that_grew_is_named(directory: Path) -> None:
    with (directory / "train-00000.starts").open("ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(
        DataError, match=r"train-00000\.starts: the file is longer than it should be: expected"
    ):
        open_shards(directory)


def test_a_missing_file_is_named(directory: Path) -> None:
    (directory / "train-00000.bin").unlink()
    with pytest.raises(DataError, match=r"train-00000\.bin: the file is missing; the manifest lists it"):
        open_shards(directory)


def test_a_directory_without_a_manifest_is_not_prepared(tmp_path: Path) -> None:
    assert not is_prepared(tmp_path)
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            DataError, match=r"not a prepared directory: it has no manifest\.json; make one with"
        ):
            open_shards(place)


def test_a_broken_manifest_is_named(directory: Path) -> None:
    manifest = directory / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:100])
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read: .*; prepare the data again"):
        open_shards(directory)
    manifest.write_text("[]")
    with pytest.raises(DataError, match="wanted format version 1, found None"):
        open_shards(directory)
    manifest.write_text(whole)
    edit(directory, dtype="float32")
    with pytest.raises(DataError, match=r"manifest\.json: dtype: must be 'uint16' or 'uint32'"):
        open_shards(directory)


def test_a_manifest_of_a_later_version_is_refused(directory: Path) -> None:
    edit(directory, format_version=2, a_new_key=1)
    with pytest.raises(DataError, match="wanted format version 1, found 2; prepare the data again"):
        open_shards(directory)


def test_a_manifest_cannot_name_files_elsewhere(directory: Path) -> None:
    tree = json.loads((directory / "manifest.json").read_text())
    tree["train"]["shards"][0]["name"] = "../../secret"
    edit(directory, train=tree["train"])
    with pytest.raises(DataError, match=r"train\.shards\.0\.name"):
        open_shards(directory)


# Writing


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_shard_appears_when_it_is_full_and_the_last_when_it_is_finished(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", dtype="uint16", shard_tokens=10)
    writer.write(np.arange(7, dtype=np.uint16), np.array([0, 5]))
    assert files(tmp_path) == ["train-00000.bin.partial", "train-00000.starts.partial"]
    writer.write(np.arange(16, dtype=np.uint16), np.array([0, 3, 14]))
    assert writer.tokens == 23
    assert files(tmp_path) == [
        f"train-0000{name}"
        for name in ("0.bin", "0.starts", "1.bin", "1.starts", "2.bin.partial", "2.starts.partial")
    ]
    records = writer.finish()
    assert [(record.name, record.tokens, record.documents) for record in records] == [
        ("train-00000", 10, 3),
        ("train-00001", 10, 1),
        ("train-00002", 3, 1),
    ]
    for record in records:
        verify_shard(tmp_path, record)
    assert np.fromfile(tmp_path / "train-00001.starts", "<u8").tolist() == [0]
    assert np.fromfile(tmp_path / "train-00002.starts", "<u8").tolist() == [1]
    assert not list(tmp_path.glob("*.partial"))


def test_a_writer_goes_on_where_another_was(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "val", dtype="uint32", shard_tokens=10)
    writer.write(np.arange(14, dtype=np.uint32), np.array([0, 11]))
    state = writer.sync()
    assert (len(state.finished), state.tokens, state.documents) == (1, 4, 1)
    writer.write(np.arange(50, dtype=np.uint32), np.array([0]))  # of this nobody knows
    writer.close()
    again = ShardWriter(tmp_path, "val", dtype="uint32", shard_tokens=10, state=state)
    assert again.tokens == 14
    again.write(np.arange(20, 23, dtype=np.uint32), np.array([1]))
    first, second = again.finish()
    assert (first, second.tokens, second.documents) == (state.finished[0], 7, 2)
    verify_shard(tmp_path, second)
    assert np.fromfile(tmp_path / "val-00001.bin", "<u4").tolist() == [10, 11, 12, 13, 20, 21, 22]
    assert np.fromfile(tmp_path / "val-00001.starts", "<u8").tolist() == [1, 5]


def test_a_writer_goes_on_where_another_had_just_finished_a_shard(tmp_path: Path) -> None:
    """The kill came between the shard's own name and the journal that would have known of it."""
    writer = ShardWriter(tmp_path, "train", dtype="uint16", shard_tokens=10)
    writer.write(np.arange(4, dtype=np.uint16), np.array([0]))
    state = writer.sync()
    writer.write(np.arange(6, dtype=np.uint16), np.array([0]))
    writer.close()
    assert files(tmp_path) == ["train-00000.bin", "train-00000.starts"]
    again = ShardWriter(tmp_path, "train", dtype="uint16", shard_tokens=10, state=state)
    again.write(np.arange(50, 56, dtype=np.uint16), np.array([0]))
    (record,) = again.finish()
    verify_shard(tmp_path, record)
    assert np.fromfile(tmp_path / "train-00000.bin", "<u2").tolist() == [0, 1, 2, 3, *range(50, 56)]


def test_shards_are_numbered_from_where_is_said_and_one_may_be_empty(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", dtype="uint16", first_number=41)
    (record,) = writer.finish(allow_empty=True)
    assert (record.name, record.tokens, record.documents) == ("train-00041", 0, 0)
    verify_shard(tmp_path, record)
    assert ShardWriter(tmp_path, "val", dtype="uint16").finish() == []
    assert files(tmp_path) == ["train-00041.bin", "train-00041.starts"]


# The fingerprint


def prepared(path: Path, out: Path, **options: float) -> ShardSet:
    prepare(open_source(path), ByteTokenizer(), out, **options)  # type: ignore[arg-type]
    return open_shards(out)


def test_the_fingerprint_tells_apart_what_a_run_would_read(
    tmp_path: Path, jsonl: Callable[..., Path], stories: list[str]
) -> None:
    path = jsonl(stories)
    first = prepared(path, tmp_path / "first").manifest
    assert prepared(path, tmp_path / "second").manifest.fingerprint == first.fingerprint
    others = [
        prepared(path, tmp_path / "split", val_fraction=0.4).manifest,
        prepared(path, tmp_path / "shards", shard_tokens=100).manifest,
        prepared(jsonl(stories[::-1]), tmp_path / "order").manifest,
        first.model_copy(update={"dtype": "uint32"}),
        first.model_copy(update={"tokenizer": first.tokenizer.model_copy(update={"fingerprint": "0"})}),
        first.model_copy(update={"train": first.val, "val": first.train}),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 7
