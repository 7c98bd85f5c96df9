import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pellucid.data.manifest import is_prepared
from pellucid.data.prepare import prepare
from pellucid.data.shards import ShardSet, Split, open_shards
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
