import gzip
import hashlib
import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid import tokenizers
from pellucid.data import prepare as prepare_module
from pellucid.data.encoding import encode_with_special, pieces
from pellucid.data.inspection import report
from pellucid.data.manifest import Manifest, SplitRule
from pellucid.data.prepare import plan, prepare
from pellucid.data.progress import Progress
from pellucid.data.shards import ShardSet, ShardWriter, Split, open_shards
from pellucid.data.sources import content, open_source, parquet
from pellucid.data.sources import documents as documents_of
from pellucid.data.sources import text as text_files
from pellucid.errors import ConfigError, DataError, StorageError, TokenizerError
from pellucid.runtime import files as runtime_files
from pellucid.tokenizers import ByteTokenizer, CharTokenizer

Jsonl = Callable[..., Path]
END = 256


def ids(split: Split) -> list[int]:
    return np.concatenate(split.shards).tolist() if split.shards else []


def documents(split: Split) -> list[str]:
    """The texts of a split of byte ids, cut where the shards say that documents begin."""
    borders = np.concatenate(
        [starts.astype(np.int64) + at for starts, at in zip(split.starts, offsets(split), strict=True)]
    )
    parts = np.split(np.concatenate(split.shards), borders[1:])
    return [ByteTokenizer().decode(part) for part in parts]


def content_hash(*texts: str) -> int:
    """As `SplitRule` tells it."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:8], "little")


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def offsets(split: Split) -> list[int]:
    return [0, *np.cumsum(split.shard_tokens).tolist()[:-1]]


def prepared(path: Path | str, out: Path, **options: Any) -> ShardSet:
    prepare(open_source(path), options.pop("tokenizer", ByteTokenizer()), out, **options)
    return open_shards(out)


# What is written


def test_the_built_in_corpus_is_split_as_nanogpt_splits_it(tmp_path: Path) -> None:
    (text,) = (document.text for document in documents_of(open_source("builtin:shakespeare"), whole=True))
    shards = prepared("builtin:shakespeare", tmp_path / "out")
    border = int(len(text) * 0.9)
    assert ids(shards.train) == list(text[:border].encode())
    assert ids(shards.val) == list(text[border:].encode())
    assert shards.train.starts[0].tolist() == shards.val.starts[0].tolist() == [0]


def test_the_files_are_readable_with_numpy_alone(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    prepared(jsonl(stories), tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    flat = np.memmap(tmp_path / "out/train-00000.bin", dtype=manifest["dtype"], mode="r")
    starts = np.fromfile(tmp_path / "out/train-00000.starts", dtype="<u8")
    assert len(flat) == manifest["train"]["tokens"]
    first = bytes(flat[starts[0] : starts[1] - 1].astype(np.uint8)).decode()
    assert first in stories


def test_every_document_is_ended_and_none_is_lost(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    shards = prepared(jsonl(stories), tmp_path / "out")
    train, val = documents(shards.train), documents(shards.val)
    assert sorted([*train, *val]) == sorted(f"{story}<|endoftext|>" for story in stories)
    assert shards.manifest.tokenizer.end_of_text_id == END


def test_a_tokenizer_without_an_end_of_text_joins_documents_and_says_so(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.end_of_text_id = None
    shards = prepared(jsonl(stories), tmp_path / "out", tokenizer=tokenizer)
    assert sorted(documents(shards.train) + documents(shards.val)) == sorted(stories)
    assert shards.manifest.tokenizer.end_of_text_id is None


def test_the_manifest_counts_documents_tokens_and_bytes(tmp_path: Path, jsonl: Jsonl) -> None:
    texts = [f"☃ {number}" for number in range(40)]
    shards = prepared(jsonl(texts), tmp_path / "out", shard_tokens=50)
    manifest = shards.manifest
    assert manifest.train.documents + manifest.val.documents == 40
    text_bytes = sum(len(text.encode()) for text in texts)
    assert manifest.train.bytes + manifest.val.bytes == text_bytes
    assert manifest.train.tokens + manifest.val.tokens == text_bytes + 40
    assert (
        manifest.train.tokens == sum(shard.tokens for shard in manifest.train.shards) == shards.train.tokens
    )
    assert manifest.train.documents == sum(shard.documents for shard in manifest.train.shards)
    assert shards.val.text_bytes == manifest.val.bytes
    assert manifest.source.files[0].name == "stories.jsonl"
    assert manifest.split == SplitRule(rule="content-hash", val_fraction=0.1)


def test_shards_are_cut_at_their_size_and_documents_go_on(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    whole = prepared(jsonl(stories), tmp_path / "whole")
    cut = prepared(jsonl(stories), tmp_path / "cut", shard_tokens=10)
    assert ids(cut.train) == ids(whole.train)
    assert documents(cut.train) == documents(whole.train)
    assert set(cut.train.shard_tokens[:-1]) == {10}
    assert 1 <= cut.train.shard_tokens[-1] <= 10
    assert any(len(starts) == 0 for starts in cut.train.starts)  # longer stories than shards
    assert [path.name for path in sorted((tmp_path / "cut").glob("val-*.bin"))][:2] == [
        "val-00000.bin",
        "val-00001.bin",
    ]


def test_ids_take_two_bytes_up_to_65536_entries_and_four_above(tmp_path: Path) -> None:
    text = "abc" * 20
    path = tmp_path / "a.txt"
    path.write_text(text)
    # Together with the end-of-text token: 65,536 and 65,537 entries.
    alphabet = "".join(chr(code) for code in range(0x10000, 0x20000))
    small = CharTokenizer("abc" + alphabet[: 65_535 - 3])
    large = CharTokenizer("bc" + alphabet[: 65_536 - 3] + "a")
    assert prepared(path, tmp_path / "small", tokenizer=small).train.shards[0].dtype == np.dtype("<u2")
    shards = prepared(path, tmp_path / "large", tokenizer=large)
    assert shards.train.shards[0].dtype == np.dtype("<u4")
    assert ids(shards.train)[:3] == [65_535, 0, 1]


def test_the_tokenizer_is_saved_beside_the_ids(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("abc")
    path = tmp_path / "a.txt"
    path.write_text("abcabcabca")
    shards = prepared(path, tmp_path / "out", tokenizer=tokenizer)
    saved = tokenizers.load(shards.tokenizer_directory)
    assert saved.fingerprint == tokenizer.fingerprint == shards.manifest.tokenizer.fingerprint
    assert saved.decode(shards.train.shards[0]) == "abcabcabc"


def test_progress_ends_at_the_size_of_the_source(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", 200)
    source = open_source(jsonl(stories))
    calls: list[Progress] = []
    manifest = prepare(source, ByteTokenizer(), tmp_path / "out", progress=calls.append)
    assert [call.source_bytes for call in calls] == sorted(call.source_bytes for call in calls)
    first, last = calls[0], calls[-1]
    assert last.source_bytes == last.source_bytes_here == last.total_bytes == source.size_bytes
    assert (last.share, last.seconds_left) == (1, 0)
    assert 0 < first.source_bytes < source.size_bytes
    assert first.seconds_left
    assert last.documents == last.documents_here == manifest.train.documents + manifest.val.documents == 42
    assert last.tokens == manifest.train.tokens + manifest.val.tokens
    assert last.text_bytes == last.text_bytes_here == sum(map(len, stories))
    assert str(last).startswith("100%: 42 documents, 0.0 MB, ")


def test_a_long_text_is_encoded_in_pieces_to_the_ids_of_the_whole(tmp_path: Path) -> None:
    (text,) = (document.text for document in documents_of(open_source("builtin:shakespeare"), whole=True))
    tokenizer = tokenizers.build({"kind": "gpt2", "max_ranks": 1000})
    batches: list[Sequence[str]] = []
    encode_batch = tokenizer.encode_batch

    def watched(texts: Sequence[str], **options: int) -> Any:
        batches.append(texts)
        return encode_batch(texts, **options)

    tokenizer.encode_batch = watched  # type: ignore[method-assign]
    shards = prepared("builtin:shakespeare", tmp_path / "out", tokenizer=tokenizer)
    assert len(batches[-2]) > 1  # training; the last batch is validation
    assert ids(shards.train) == tokenizer.encode(text[: int(len(text) * 0.9)]).tolist()


def test_a_text_without_spaces_is_not_cut() -> None:
    assert list(pieces("x" * 100, 0, 100, size=10)) == ["x" * 100]


def test_an_id_beyond_the_vocabulary_is_refused_not_wrapped(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = 110
    path = tmp_path / "a.txt"
    path.write_text("abcdefghijklmno")
    with pytest.raises(TokenizerError, match="gave id 111, its vocabulary has 110 entries"):
        prepared(path, tmp_path / "out", tokenizer=tokenizer)


# The split


def test_documents_are_split_by_their_text_whatever_their_order(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    forward = prepared(jsonl(stories), tmp_path / "forward", val_fraction=0.3)
    backward = prepared(jsonl(stories[::-1]), tmp_path / "backward", val_fraction=0.3)
    half = prepared(jsonl(stories[::2]), tmp_path / "half", val_fraction=0.3)
    held_out = set(documents(forward.val))
    assert held_out == set(documents(backward.val)) > set(documents(half.val))
    assert held_out == {f"{s}<|endoftext|>" for s in stories if content_hash(s) / 2**64 < 0.3}


def test_equal_texts_are_on_one_side(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    shards = prepared(jsonl(stories * 3), tmp_path / "out", val_fraction=0.5)
    train, val = documents(shards.train), documents(shards.val)
    assert not set(train) & set(val)
    assert len(train) + len(val) == 3 * len(stories)


def test_equal_texts_are_on_one_side_across_kinds_of_file(tmp_path: Path, stories: list[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, story in enumerate(stories):
        (folder / f"{number:02d}.txt").write_bytes(story.encode())
    (folder / "all.jsonl").write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    shards = prepared(folder, tmp_path / "out", val_fraction=0.5)
    assert not set(documents(shards.train)) & set(documents(shards.val))


def test_a_larger_fraction_holds_out_more(tmp_path: Path, jsonl: Jsonl) -> None:
    texts = [f"text {number}" for number in range(2000)]
    shards = prepared(jsonl(texts), tmp_path / "out", val_fraction=0.25)
    assert 430 < shards.manifest.val.documents < 570


@pytest.mark.parametrize(("fraction", "side"), [(1e-9, "val"), (1 - 1e-9, "train")])
def test_a_side_that_chance_leaves_empty_takes_the_extreme_document(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], fraction: float, side: str
) -> None:
    shards = prepared(jsonl(stories), tmp_path / "out", val_fraction=fraction)
    extreme = min(stories, key=content_hash) if side == "val" else max(stories, key=content_hash)
    assert documents(getattr(shards, side)) == [f"{extreme}<|endoftext|>"]
    assert shards.manifest.train.documents + shards.manifest.val.documents == len(stories)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.97])
def test_a_single_text_is_split_by_characters(tmp_path: Path, fraction: float) -> None:
    text = "☃é" * 61
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    shards = prepared(path, tmp_path / "out", tokenizer=CharTokenizer("é☃"), val_fraction=fraction)
    assert shards.train.tokens == int(len(text) * (1 - fraction))
    assert shards.train.tokens + shards.val.tokens == len(text)
    assert shards.manifest.split.rule == "tail"
    assert shards.manifest.tokenizer.end_of_text_id is None


# Pairs

FIELDS = ("source", "target")
PAIRS = [(f"question {number}", f"answer {number % 7}") for number in range(60)]


def pairs_of(split: Split) -> list[tuple[str, str]]:
    texts = documents(split)
    assert all(text.endswith("<|endoftext|>") for text in texts)
    texts = [text.removesuffix("<|endoftext|>") for text in texts]
    return list(zip(texts[0::2], texts[1::2], strict=True))


def prepared_pairs(path: Path, out: Path, **options: Any) -> ShardSet:
    prepare(open_source(path, pair_fields=FIELDS), ByteTokenizer(), out, **options)
    return open_shards(out)


@pytest.mark.parametrize("shard_tokens", [7, 50, 10**6])
def test_a_pair_is_two_documents_one_after_the_other(
    tmp_path: Path, pair_lines: Jsonl, shard_tokens: int
) -> None:
    shards = prepared_pairs(pair_lines(PAIRS), tmp_path / "out", shard_tokens=shard_tokens, val_fraction=0.3)
    train, val = pairs_of(shards.train), pairs_of(shards.val)
    assert sorted([*train, *val]) == sorted(PAIRS)
    assert [pair for pair in PAIRS if pair in set(train)] == train
    assert shards.train.is_paired
    assert shards.val.is_paired
    assert shards.manifest.train.documents == 2 * len(train)
    assert shards.manifest.source.pair_fields == FIELDS


def test_a_pair_is_split_by_both_its_texts(tmp_path: Path, pair_lines: Jsonl) -> None:
    shards = prepared_pairs(pair_lines(PAIRS), tmp_path / "out", val_fraction=0.3)
    assert set(pairs_of(shards.val)) == {pair for pair in PAIRS if content_hash(*pair) / 2**64 < 0.3}
    assert content_hash("a", "b") not in {content_hash("ab"), content_hash("b", "a"), content_hash("a")}


def test_the_shards_say_that_they_hold_pairs(tmp_path: Path, pair_lines: Jsonl) -> None:
    path = pair_lines(PAIRS)
    paired = plan(open_source(path, pair_fields=FIELDS), ByteTokenizer())
    swapped = plan(open_source(path, pair_fields=FIELDS[::-1]), ByteTokenizer())
    single = plan(open_source(path, text_field="source"), ByteTokenizer())
    assert len({paired.key, swapped.key, single.key}) == 3
    prepared_pairs(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"source: 1 file\(s\) of pairs \(source, target\) with hash"):
        prepared(path, tmp_path / "out")


def test_what_single_texts_are_known_by_is_what_it_was(tmp_path: Path) -> None:
    """Pinned before there were pairs: entries of caches and manifests of runs go on to be found."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "two"}\n')
    key = "487e15a034b99fbc61b2ebb6e415f0018fc4fa2a726bf5dc171dde95f898fb7f"
    assert plan(open_source(path), ByteTokenizer()).key == key
    manifest = prepared(path, tmp_path / "out").manifest
    assert manifest.key == key
    assert manifest.fingerprint == "2d374a58a5f982142b5a931de8e58b48ad37a499e2edbacefacaadf917816878"
    assert "pair_fields" not in (tmp_path / "out/manifest.json").read_text()


SENTINELS = ByteTokenizer(["<extra_id_0>", "<extra_id_1>", "<extra_id_0>x"])
MARKED = [
    "a <extra_id_0>b<extra_id_1>",
    "<extra_id_1><extra_id_0>",
    "plain, ☃",
    "<extra_id_0>xx<|endoftext|>",
    "<extra_id_7>",
]


def test_special_tokens_in_pairs_are_parsed_as_generation_parses_a_source(
    tmp_path: Path, pair_lines: Jsonl
) -> None:
    pairs = [(source, f"{target} {source}") for source, target in itertools.permutations(MARKED, 2)]
    prepare(open_source(pair_lines(pairs), pair_fields=FIELDS), SENTINELS, tmp_path / "out", val_fraction=0.5)
    shards = open_shards(tmp_path / "out")
    found = set[tuple[tuple[int, ...], ...]]()
    for split in (shards.train, shards.val):
        texts = [tuple(split.read(a, b).tolist()) for a, b in itertools.pairwise(split.bounds.tolist())]
        found |= set(zip(texts[0::2], texts[1::2], strict=True))
    assert found == {
        tuple((*SENTINELS.encode(text, allow_special=True).tolist(), 256) for text in pair) for pair in pairs
    }


def test_special_tokens_in_single_texts_are_plain_text(tmp_path: Path, jsonl: Jsonl) -> None:
    shards = prepared(jsonl(MARKED), tmp_path / "out", tokenizer=SENTINELS, val_fraction=0.5)
    ids = np.concatenate([*shards.train.shards, *shards.val.shards])
    assert (ids > 255).sum() == len(MARKED)  # an end for each text
    assert "special_tokens" not in (tmp_path / "out/manifest.json").read_text()


@pytest.mark.parametrize("texts", [MARKED, MARKED[:1], [""], ["", *MARKED, ""], []])
def test_many_texts_are_encoded_as_each_is(texts: list[str]) -> None:
    ids, offsets = encode_with_special(SENTINELS, SENTINELS.encode_batch, texts)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
        SENTINELS.encode(text, allow_special=True).tolist() for text in texts
    ]


def test_pairs_with_plain_special_tokens_are_another_recipe(tmp_path: Path, pair_lines: Jsonl) -> None:
    """Directories from before special tokens were parsed are not taken for what would be made now."""
    source = open_source(pair_lines(PAIRS), pair_fields=FIELDS)
    recipe = plan(source, ByteTokenizer())
    earlier = recipe.model_copy(update={"special_tokens": None})
    assert recipe.key != earlier.key
    assert earlier.differences(recipe) == ["special_tokens: None there, parsed asked for"]


def test_pairs_that_are_all_one_cannot_be_split(tmp_path: Path, pair_lines: Jsonl) -> None:
    path = pair_lines([("a", "b")] * 2)
    with pytest.raises(
        DataError, match=r"all pairs have one and the same source and target, .* two that differ"
    ):
        prepared_pairs(path, tmp_path / "out")


def test_pairs_need_a_mark_where_they_end(tmp_path: Path, pair_lines: Jsonl) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.end_of_text_id = None
    with pytest.raises(DataError, match="pairs need a tokenizer with an end-of-text token"):
        plan(open_source(pair_lines(PAIRS), pair_fields=FIELDS), tokenizer)


def test_progress_counts_both_texts_of_a_pair(tmp_path: Path, pair_lines: Jsonl) -> None:
    path, seen = pair_lines(PAIRS), list[Progress]()
    prepared_pairs(path, tmp_path / "out", progress=seen.append)
    assert (seen[-1].source_bytes, seen[-1].total_bytes) == (path.stat().st_size,) * 2
    assert seen[-1].documents == 2 * len(PAIRS)
    assert seen[-1].text_bytes == sum(len(text) for pair in PAIRS for text in pair)


# An `out` that exists


def test_the_same_again_is_used_as_it_is(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    first = prepared(jsonl(stories), out).manifest
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with caplog.at_level(logging.INFO, logger="pellucid"):
        again = prepared(jsonl(stories), out).manifest
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "already prepared from the same source and tokenizer; used as it is" in caplog.text


def test_the_same_text_under_another_name_is_the_same(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    first = plan(open_source(jsonl(stories)), ByteTokenizer())
    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "stories.jsonl").write_bytes(jsonl(stories).read_bytes())
    second = plan(open_source(folder), ByteTokenizer())
    assert first.source.name != second.source.name
    assert first.key == second.key


def test_anything_else_in_the_way_is_never_touched(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    out, path = tmp_path / "out", jsonl(stories)
    prepared(path, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(DataError) as caught:
        prepared(path, out, tokenizer=ByteTokenizer(["<|pad|>"]), val_fraction=0.2)
    message = str(caught.value)
    assert message.startswith(f"{out}: holds data prepared in another way; name another directory:\n")
    assert "split: content-hash 0.1 there, content-hash 0.2 asked for" in message
    assert "tokenizer: byte (" in message
    with pytest.raises(DataError, match=r"source: 1 file.* there, 1 file.* asked for"):
        prepared(jsonl([*stories, "new"]), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_files_in_the_way_are_never_touched(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("mine")
    with pytest.raises(DataError, match="out: holds other files; name a directory that does not exist yet"):
        prepared(jsonl(stories), tmp_path / "out")
    with pytest.raises(DataError, match=r"thesis\.doc: a file is in the way"):
        prepared(jsonl(stories), tmp_path / "out/thesis.doc")
    assert (tmp_path / "out/thesis.doc").read_text() == "mine"


def test_an_empty_directory_is_filled(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    (tmp_path / "out").mkdir()
    assert prepared(jsonl(stories), tmp_path / "out").train.tokens > 0


# Faults, none of which leaves anything behind


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "the file is empty"),
        (["", ""], "no document has any text"),
        (["one", "one"], "one and the same text"),
    ],
)
def test_documents_that_cannot_be_split(tmp_path: Path, jsonl: Jsonl, texts: list[str], message: str) -> None:
    path = jsonl(texts)
    with pytest.raises(DataError, match=message):
        prepared(path, tmp_path / "out")
    assert left(tmp_path) == [path.name]


def test_a_text_too_short_to_be_split(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(
        DataError, match=r"a\.txt: 1 characters cannot be split with a validation part of 0\.1"
    ):
        prepared(path, tmp_path / "out")


def test_bad_input_late_in_the_source_leaves_nothing(
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    path = jsonl(stories)
    with path.open("a") as file:
        file.write("not JSON\n")
    with pytest.raises(DataError, match="line 43: not JSON"):
        prepared(path, tmp_path / "out")
    assert left(tmp_path) == [path.name]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range(tmp_path: Path, jsonl: Jsonl, stories: list[str], fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_fraction: wanted a number between 0 and 1"):
        prepared(jsonl(stories), tmp_path / "out", val_fraction=fraction)
    with pytest.raises(ConfigError, match="shard_tokens: wanted at least 1"):
        prepared(jsonl(stories), tmp_path / "out", shard_tokens=0)


def test_a_full_disk_is_found_before_anything_is_written(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(stories)
    usage = runtime_files.shutil._ntuple_diskusage(10**6, 10**6 - 100, 100)  # type: ignore[attr-defined]
    monkeypatch.setattr(runtime_files.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(
        StorageError, match=r"preparing stories\.jsonl needs .* MB and the disk has 0\.0 MB free"
    ):
        prepared(path, tmp_path / "deep/out")
    assert sorted(left(tmp_path)) == ["deep", path.name]
    assert left(tmp_path / "deep") == []


def test_a_disk_that_fills_while_writing_leaves_nothing(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(stories)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(StorageError, match="no space left on device; nothing that was there is lost"):
        prepared(path, tmp_path / "out")
    assert left(tmp_path) == [path.name]


def test_a_disk_that_fills_after_a_shard_costs_no_finished_shard(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", 200)
    path, out = jsonl(stories), tmp_path / "out"
    prepared(path, tmp_path / "whole", shard_tokens=100)
    write, count = ShardWriter.write, itertools.count()

    def full(*words: Any) -> None:
        if next(count) == 9:
            raise OSError(28, "No space left on device")
        write(*words)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", full)
        with pytest.raises(StorageError, match="no space left on device"):
            prepared(path, out, shard_tokens=100)
    journal = json.loads((out / "unfinished.json").read_text())
    finished = {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for record in journal["train"]["writer"]["finished"]
        for file in out.glob(f"{record['name']}.*")
    }
    assert len(finished) >= 4
    assert not (out / "manifest.json").exists()
    with pytest.raises(DataError, match="not a prepared directory"):
        open_shards(out)
    prepared(path, out, shard_tokens=100)
    assert contents(out) == contents(tmp_path / "whole")
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in finished} == finished


def test_a_directory_that_cannot_be_written(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file: a file is in the way of a directory|is in the way"):
        prepared(jsonl(stories), tmp_path / "file/out")


def test_a_read_only_directory(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        (locked / "probe").touch()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may write anywhere (root)")
    with pytest.raises(StorageError, match="cannot be written: permission denied"):
        prepared(jsonl(stories), locked / "out")


# Two at once


def test_the_slower_of_two_uses_what_the_faster_made(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, out = jsonl(stories), tmp_path / "out"
    results: list[Manifest] = []
    slower = threading.Thread(
        target=lambda: results.append(prepare(open_source(path), ByteTokenizer(), out)), daemon=True
    )

    def begin_the_slower(progress: Progress) -> None:
        slower.start()
        deadline = time.monotonic() + 30
        while "another process is preparing it; waiting" not in caplog.text:
            assert time.monotonic() < deadline, "it did not wait"
            time.sleep(0.001)

    with caplog.at_level(logging.INFO, logger="pellucid"):
        first = prepare(open_source(path), ByteTokenizer(), out, progress=begin_the_slower)
        slower.join(30)
    assert results == [first]
    assert "used as it is" in caplog.text
    assert sorted(left(tmp_path)) == ["out", path.name]


# Sources, workers, blocks: the same bytes

WORDS = [f"{number}: Ünï {'☃ ' * (number % 5)}{'word ' * (number % 11)}end" for number in range(120)]


def write_source(folder: Path, kind: str) -> Path:
    """The words as a file of some kind."""
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in WORDS).encode()
    path = folder / kind
    if kind.endswith(".parquet"):
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            arrow.table({"text": WORDS}), path, row_group_size=17
        )
    elif kind.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines, mtime=0))
    elif kind.endswith(".jsonl"):
        path.write_bytes(lines)
    elif kind == "marked.txt":
        path.write_text("<|endoftext|>".join(WORDS), encoding="utf-8")
    else:
        path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", 300)
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 300)
    monkeypatch.setattr(text_files, "PIECE_BYTES", 300)


def reading_of(kind: str) -> dict[str, Any]:
    return {"document_marker": "<|endoftext|>"} if kind == "marked.txt" else {}


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("kind", ["a.jsonl", "a.jsonl.gz", "marked.txt", "plain.txt", "a.parquet"])
def test_neither_workers_nor_their_kind_nor_blocks_change_a_byte(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_source(tmp_path / "data", kind)
    tokenizer = tokenizers.build({"kind": "gpt2", "max_ranks": 1000})

    def made(name: str, workers: int) -> dict[str, bytes]:
        calls: list[Progress] = []
        source = open_source(path, **reading_of(kind))
        prepare(source, tokenizer, tmp_path / name, workers=workers, shard_tokens=400, progress=calls.append)
        assert len(calls) > 5, "the blocks are not tiny"
        open_shards(tmp_path / name).verify()
        return contents(tmp_path / name)

    one = made("one", 1)
    assert {name.split("/")[0].split("-")[0] for name in one} == {
        "manifest.json",
        "tokenizer",
        "train",
        "val",
    }
    assert json.loads(one["manifest.json"])["train"]["tokens"] > 4 * 400
    assert made("three threads", 3) == one
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_FEW_BYTES", 0)
        patch.setattr(prepare_module, "_FEW_WORKERS", 0)
        assert made("two processes", 2) == one
    for name in ("BLOCK_BYTES", "PIECE_BYTES"):
        monkeypatch.setattr(content if name == "BLOCK_BYTES" else text_files, name, 1 << 20)
    source = open_source(path, **reading_of(kind))
    prepare(source, tokenizer, tmp_path / "large blocks", shard_tokens=400)
    assert contents(tmp_path / "large blocks") == one
    assert sorted(left(tmp_path)) == sorted(["data", "one", "three threads", "two processes", "large blocks"])


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("kind", ["a.jsonl", "a.jsonl.gz", "marked.txt", "a.parquet"])
def test_the_kind_of_file_does_not_change_the_ids(tmp_path: Path, kind: str) -> None:
    source = open_source(write_source(tmp_path / "data", kind), **reading_of(kind))
    prepare(source, ByteTokenizer(), tmp_path / "out")
    shards = open_shards(tmp_path / "out")
    train = [text for text in WORDS if content_hash(text) / 2**64 >= 0.1]
    assert documents(shards.train) == [f"{text}<|endoftext|>" for text in train]
    assert shards.manifest.train.longest == max(len(text.encode()) + 1 for text in train)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("kind", ["gpt2", "byte", "whole"])
def test_one_text_in_pieces_has_the_ids_of_both_its_sides(tmp_path: Path, kind: str) -> None:
    """The border between the sides lies inside a piece, and may lie inside a word."""
    text = "\n".join(WORDS)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    tokenizer = tokenizers.build({"kind": "gpt2", "max_ranks": 1000} if kind != "byte" else "byte")
    tokenizer.cuts_at_words = kind != "whole"
    pieces = len(list(open_source(tmp_path / "a.txt").blocks(whole=kind == "whole")))
    assert (pieces == 1) == (kind == "whole")
    for number, fraction in enumerate((0.9, 0.501, 0.1)):
        shards = prepared(
            tmp_path / "a.txt",
            tmp_path / str(number),
            tokenizer=tokenizer,
            val_fraction=fraction,
            shard_tokens=700,
        )
        border = int(len(text) * (1 - fraction))
        assert ids(shards.train) == tokenizer.encode(text[:border]).tolist()
        assert ids(shards.val) == tokenizer.encode(text[border:]).tolist()
        for split, record in ((shards.train, shards.manifest.train), (shards.val, shards.manifest.val)):
            assert [start for starts in split.starts for start in starts.tolist()] == [0]
            assert (record.documents, record.longest) == (1, record.tokens)
        assert shards.manifest.train.bytes == len(text[:border].encode())


# What is left out


def test_what_is_left_out_is_counted_by_reason_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", 100)
    lines = [json.dumps({"text": text}).encode() for text in WORDS[:40]]
    lines[3:3] = [b'{"text": ""}', b'{"text": "\xff\xfe"}']
    lines[20:20] = [b"not JSON", b'{"story": "no text"}', b'{"text": ""}', b'{"text": "\xff"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 5: not a text file: byte .* is 0xff, not UTF-8"):
        prepared(path, tmp_path / "out")

    def made(name: str, workers: int) -> Manifest:
        source = open_source(path, errors="skip")
        return prepare(source, ByteTokenizer(), tmp_path / name, workers=workers, val_fraction=0.3)

    manifest = made("out", 1)
    assert manifest.left_out == {"empty": 2, "no such field": 1, "not JSON": 1, "not UTF-8": 2}
    assert list(manifest.left_out) == sorted(manifest.left_out)
    begin = len(b"\n".join(lines[:3])) + 1
    assert manifest.first_left_out["empty"] == f"{path}, byte {begin:,}"
    assert manifest.train.documents + manifest.val.documents == 40
    assert open_shards(tmp_path / "out").manifest == manifest == made("two", 2)
    assert report(open_shards(tmp_path / "out"))["left_out"]["not UTF-8"] == {
        "documents": 2,
        "first": f"{path}, byte {begin + 13:,}",
    }
    assert "left_out" not in json.loads((tmp_path / "out/manifest.json").read_text())["source"]


def test_what_is_replaced_is_counted_and_written(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}).encode() for text in WORDS[:40]]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*lines, b'{"text": "a\xffb"}']) + b"\n")
    source = open_source(path, errors="replace")
    manifest = prepare(source, ByteTokenizer(), tmp_path / "out")
    shards = open_shards(tmp_path / "out")
    assert manifest.left_out == {"not UTF-8 (replaced)": 1}
    assert "a\ufffdb<|endoftext|>" in documents(shards.train) + documents(shards.val)
    assert manifest.train.documents + manifest.val.documents == 41


# Equal documents


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_of_equal_documents_is_kept(tmp_path: Path, jsonl: Jsonl, workers: int) -> None:
    texts = [*WORDS[:50], *WORDS[10:60], WORDS[0], WORDS[0], WORDS[99]]
    first = list(dict.fromkeys(texts))
    path = jsonl(texts)
    shards = prepared(path, tmp_path / "out", deduplicate=True, workers=workers, shard_tokens=200)
    assert contents(tmp_path / "out").keys() >= {"manifest.json", "train-00003.bin"}
    train, val = (
        [text.removesuffix("<|endoftext|>") for text in documents(s)] for s in (shards.train, shards.val)
    )
    assert train == [text for text in first if content_hash(text) / 2**64 >= 0.1]
    assert val == [text for text in first if content_hash(text) / 2**64 < 0.1]
    manifest = shards.manifest
    assert manifest.train.documents + manifest.val.documents == len(first) == 61
    assert manifest.train.duplicates + manifest.val.duplicates == len(texts) - 61
    assert manifest.train.bytes == sum(len(text.encode()) for text in train)
    assert manifest.train.longest == max(len(text.encode()) + 1 for text in train)
    assert not [name for name in contents(tmp_path / "out") if "seen" in name]
    assert report(shards)["train"]["duplicates"] == manifest.train.duplicates > 0

    unlike = prepared(path, tmp_path / "all", shard_tokens=200)
    assert unlike.manifest.key != manifest.key
    assert unlike.manifest.train.duplicates == 0
    with pytest.raises(DataError, match="deduplicated: True there, False asked for"):
        prepared(path, tmp_path / "out", shard_tokens=200)


@pytest.mark.usefixtures("tiny_blocks")
def test_pairs_are_equal_when_both_their_texts_are(tmp_path: Path, pair_lines: Jsonl) -> None:
    pairs = [*PAIRS[:20], *PAIRS[5:30], ("question 1", "another answer"), PAIRS[1]]
    shards = prepared_pairs(
        pair_lines(pairs), tmp_path / "out", deduplicate=True, val_fraction=0.3, shard_tokens=50
    )
    first = list(dict.fromkeys(pairs))
    assert pairs_of(shards.train) == [pair for pair in first if content_hash(*pair) / 2**64 >= 0.3]
    assert pairs_of(shards.val) == [pair for pair in first if content_hash(*pair) / 2**64 < 0.3]
    manifest = shards.manifest
    assert manifest.train.documents + manifest.val.documents == 2 * len(first)
    assert manifest.train.duplicates + manifest.val.duplicates == len(pairs) - len(first)


# An unfinished preparation


class StopError(Exception):
    """A preparation is cut short in a way that nothing inside it expects."""


def cut_short(path: Path, out: Path, after: int, **options: Any) -> None:
    count = itertools.count(1)

    def stop(progress: Progress) -> None:
        if next(count) == after:
            raise StopError

    with pytest.raises(StopError):
        prepare(open_source(path), ByteTokenizer(), out, progress=stop, **options)


@pytest.mark.usefixtures("tiny_blocks")
def test_an_unfinished_preparation_is_gone_on_with(
    tmp_path: Path, jsonl: Jsonl, caplog: pytest.LogCaptureFixture
) -> None:
    path, out = jsonl(WORDS), tmp_path / "out"
    prepared(path, tmp_path / "whole", shard_tokens=500)
    cut_short(path, out, 8, shard_tokens=500, save_every_s=0)
    assert (out / "unfinished.json").is_file()
    calls: list[Progress] = []
    with caplog.at_level(logging.INFO, logger="pellucid"):
        prepare(open_source(path), ByteTokenizer(), out, shard_tokens=500, progress=calls.append)
    assert "out: going on after " in caplog.text
    assert calls[0].source_bytes > 8 * 300 > calls[0].source_bytes_here
    assert calls[-1].documents == len(WORDS) > calls[-1].documents_here
    assert calls[-1].source_bytes == path.stat().st_size
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("tiny_blocks")
def test_an_unfinished_preparation_of_something_else_is_refused_where_it_has_shards(
    tmp_path: Path, jsonl: Jsonl
) -> None:
    path, out = jsonl(WORDS), tmp_path / "out"
    cut_short(path, out, 8, shard_tokens=200)
    before = contents(out)
    with pytest.raises(DataError) as caught:
        prepared(path, out, shard_tokens=300, val_fraction=0.2)
    message = str(caught.value)
    assert message.startswith(f"{out}: holds an unfinished preparation of something else, with ")
    assert "shard_tokens: 200 there, 300 asked for" in message
    assert "split: content-hash 0.1 there, content-hash 0.2 asked for" in message
    assert contents(out) == before


@pytest.mark.usefixtures("tiny_blocks")
def test_an_unfinished_preparation_of_something_else_without_a_shard_is_replaced(
    tmp_path: Path, jsonl: Jsonl
) -> None:
    path, out = jsonl(WORDS), tmp_path / "out"
    cut_short(path, out, 8, save_every_s=0, deduplicate=True)
    assert {name.split(".")[0] for name in contents(out)} >= {"train-00000", "seen", "unfinished"}
    prepared(path, out, shard_tokens=300, val_fraction=0.2)
    prepared(path, tmp_path / "whole", shard_tokens=300, val_fraction=0.2)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("shard", ["train-00000.bin.partial", "train-00000.starts.partial"])
def test_a_shard_shorter_than_the_journal_says_is_not_gone_on_with(
    tmp_path: Path, jsonl: Jsonl, shard: str
) -> None:
    path, out = jsonl(WORDS), tmp_path / "out"
    cut_short(path, out, 8, save_every_s=0)
    (out / shard).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{shard}: shorter than unfinished\.json beside it says; remove"):
        prepared(path, out)


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"recipe": 1}'])
def test_a_journal_that_cannot_be_read_is_begun_anew(
    tmp_path: Path, jsonl: Jsonl, stories: list[str], broken: bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "unfinished.json").write_bytes(broken)
    (out / "train-00000.bin.partial").write_bytes(b"abc")
    prepared(jsonl(stories), out)
    prepared(jsonl(stories), tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


# Large and odd documents


@pytest.mark.parametrize("workers", [1, 2])
def test_documents_without_a_character_are_counted_and_not_written(
    tmp_path: Path, jsonl: Jsonl, workers: int
) -> None:
    shards = prepared(jsonl(["", *WORDS, "", ""]), tmp_path / "out", workers=workers)
    assert shards.manifest.left_out == {"empty": 3}
    assert shards.manifest.train.documents + shards.manifest.val.documents == len(WORDS)
    assert (np.diff(shards.train.bounds) > 1).all()


@pytest.mark.slow
def test_a_line_of_50_megabytes(tmp_path: Path) -> None:
    path, long = tmp_path / "a.jsonl", "word " * 10_000_000
    lines = [json.dumps({"text": text}) for text in ("before", long, "after")]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shards = prepared(path, tmp_path / "out", workers=2, val_fraction=0.5)
    assert shards.manifest.train.tokens + shards.manifest.val.tokens == len(long) + len("beforeafter") + 3
    longest = max((shards.train, shards.val), key=lambda split: split.tokens)
    assert (shards.manifest.train.longest, shards.manifest.val.longest).count(len(long) + 1) == 1
    begin = int(longest.bounds[np.diff(longest.bounds).argmax()])
    assert longest.read(begin, begin + len(long)).astype(np.uint8).tobytes() == long.encode()


# Torch


def test_preparing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pellucid.data.prepare, pellucid.data.cache, pellucid.data.config\n"
        "import pellucid.data.order, pellucid.data.batch, pellucid.data.evaluation\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
