import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.data import assembly
from pellucid.data.assembly import Assembler, Journal, read_journal, remove_unfinished
from pellucid.data.encoding import EncodedBlock, EncodedSide
from pellucid.data.manifest import Recipe, SplitRule, TokenizerRecord
from pellucid.data.prepare import prepare
from pellucid.data.sources import Faults, Place, SourceFile, SourceRecord, open_source
from pellucid.errors import StorageError
from pellucid.tokenizers import ByteTokenizer

DUMMY_SHA256 = "0" * 64


def journal(*, shard_tokens: int = 10, deduplicated: bool = False) -> Journal:
    recipe = Recipe(
        dtype="uint16",
        vocab_size=257,
        shard_tokens=shard_tokens,
        tokenizer=TokenizerRecord(kind="byte", fingerprint=DUMMY_SHA256, end_of_text_id=256),
        source=SourceRecord(
            name="a", files=(SourceFile(name="a.jsonl", size_bytes=900, sha256=DUMMY_SHA256),)
        ),
        split=SplitRule(rule="content-hash", val_fraction=0.1),
        deduplicated=deduplicated,
    )
    return Journal(recipe=recipe, division=("content-hash", 1 << 60))


def side(*lengths: int, names: str = "") -> EncodedSide:
    """Documents of so many ids each; `names` gives each a digest."""
    names = names or "".join(chr(100 + number) for number in range(len(lengths)))
    return EncodedSide(
        ids=np.arange(sum(lengths), dtype=np.uint16),
        starts=np.cumsum([0, *lengths])[:-1].astype(np.int64),
        text_bytes=sum(lengths) - len(lengths),
        digests=np.array([name.encode().ljust(16) for name in names], dtype="V16"),
        document_bytes=np.array(lengths, dtype=np.int64) - 1,
    )


def block(number: int, train: EncodedSide, val: EncodedSide | None = None, **left_out: int) -> EncodedBlock:
    faults = Faults("skip")
    for reason, count in left_out.items():
        for _ in range(count):
            faults.count(reason, f"block {number}")
    return EncodedBlock(Place(0, number + 1), 100, train, val or side(), faults)


def test_the_journal_says_what_is_on_the_disk_and_where_the_source_goes_on(tmp_path: Path) -> None:
    assembler = Assembler(tmp_path, journal())
    assert not assembler.has_shards
    assembler.add(block(0, side(3, 4), side(5), empty=2))
    assert (assembler.documents, assembler.tokens, assembler.text_bytes) == (3, 12, 9)
    assert not assembler.has_new_shard
    assembler.add(block(1, side(6, 2), empty=1, odd=1))
    assert assembler.has_new_shard
    assembler.save()
    assert not assembler.has_new_shard
    assembler.close()

    found = read_journal(tmp_path)
    assert found is not None
    assert (found.next, found.source_bytes, found.finished_shards) == ((0, 2), 200, 1)
    assert (found.train.documents, found.train.longest, found.val.documents) == (4, 6, 1)
    assert (found.train.writer.tokens, found.val.writer.tokens) == (5, 5)
    assert (found.left_out, found.first_left_out) == (
        {"empty": 3, "odd": 1},
        {"empty": "block 0", "odd": "block 1"},
    )
    assert (tmp_path / "train-00000.bin").stat().st_size == 20
    assert (tmp_path / "train-00001.bin.partial").stat().st_size == 10

    again = Assembler(tmp_path, found)
    assert (again.next, again.documents, again.tokens, again.text_bytes) == (Place(0, 2), 5, 20, 15)
    again.add(block(2, side(2), empty=1))
    manifest = again.finish()
    assert (manifest.train.documents, manifest.train.tokens, manifest.train.longest) == (5, 17, 6)
    assert (manifest.left_out, manifest.first_left_out["empty"]) == ({"empty": 4, "odd": 1}, "block 0")
    starts = [np.fromfile(tmp_path / f"train-0000{n}.starts", "<u8").tolist() for n in range(2)]
    assert starts == [[0, 3, 7], [3, 5]]


def test_what_was_added_after_the_last_save_is_cut_off(tmp_path: Path) -> None:
    assembler = Assembler(tmp_path, journal(deduplicated=True))
    assembler.add(block(0, side(3, 3, names="ab"), side(2, names="v")))
    assembler.save()
    assembler.add(block(1, side(9, 9, names="ac"), side(7, names="w")))
    assembler.close()
    found = read_journal(tmp_path)
    assert found is not None
    again = Assembler(tmp_path, found)
    again.add(block(1, side(4, 4, 4, names="acb"), side(2, names="v")))
    manifest = again.finish()
    assert (manifest.train.documents, manifest.train.tokens, manifest.train.duplicates) == (3, 10, 2)
    assert (manifest.val.documents, manifest.val.tokens, manifest.val.duplicates) == (1, 2, 1)
    assert np.fromfile(tmp_path / "train-00000.bin", "<u2").tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]


def test_documents_that_were_stored_before_a_kill_and_met_again_are_still_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes after the store is on the disk, and before the journal is."""
    assembler = Assembler(tmp_path, journal(deduplicated=True))
    blocks = [block(0, side(3, 3, 3, names="aba"), side(2, names="v")), block(1, side(4, 4, names="cb"))]
    assembler.add(blocks[0])
    assembler.save()
    assembler.add(blocks[1])
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "_write_journal", lambda *words: None)
        assembler.save()
    assembler.close()
    found = read_journal(tmp_path)
    assert found is not None
    assert found.next == (0, 1)
    again = Assembler(tmp_path, found)
    again.add(blocks[1])
    manifest = again.finish()
    assert (manifest.train.documents, manifest.train.duplicates) == (3, 2)
    assert manifest.train.tokens == 3 + 3 + 4


def test_a_disk_that_is_full_for_what_was_seen_is_said_as_such(
    tmp_path: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def small(*words: Any, **settings: Any) -> sqlite3.Connection:
        database = connect(*words, **settings)
        database.execute("PRAGMA max_page_count = 4")
        return database

    path = jsonl(f"text {number}" for number in range(3000))
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(StorageError, match="no space left on device; nothing that was there is lost"):
            prepare(open_source(path), ByteTokenizer(), tmp_path / "out", deduplicate=True)
    assert not (tmp_path / "out").exists()
    manifest = prepare(open_source(path), ByteTokenizer(), tmp_path / "out", deduplicate=True)
    assert manifest.train.documents + manifest.val.documents == 3000


def test_what_is_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assembler = Assembler(out, journal(deduplicated=True))
    assembler.add(block(0, side(30)))
    assembler.save()
    assembler.close()
    (out / "tokenizer").mkdir()
    (out / "tokenizer/tokenizer.json").write_text("{}")
    (out / "notes.txt").write_text("mine")
    assert len(list(out.iterdir())) > 6
    remove_unfinished(out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    remove_unfinished(out)
    assert not out.exists()
    remove_unfinished(out)


def test_a_journal_of_another_shape_is_none(tmp_path: Path) -> None:
    assert read_journal(tmp_path) is None
    assembler = Assembler(tmp_path, journal())
    assembler.close()
    tree = json.loads((tmp_path / "unfinished.json").read_text())
    assert read_journal(tmp_path) == journal()
    (tmp_path / "unfinished.json").write_text(json.dumps(tree | {"later": 1}))
    assert read_journal(tmp_path) is None
