import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid import tokenizers
from pellucid.data.encoding import encode_with_special, pieces
from pellucid.data.manifest import Manifest, SplitRule
from pellucid.data.prepare import content_hash, plan, prepare
from pellucid.data.shards import ShardSet, Split, open_shards
from pellucid.data.sources import open_source
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


def offsets(split: Split) -> list[int]:
    return [0, *np.cumsum(split.shard_tokens).tolist()[:-1]]


def prepared(path: Path | str, out: Path, **options: Any) -> ShardSet:
    prepare(open_source(path), options.pop("tokenizer", ByteTokenizer()), out, **options)
    return open_shards(out)


# What is written


def test_the_built_in_corpus_is_split_as_nanogpt_splits_it(tmp_path: Path) -> None:
    (text,) = (document.text for document in open_source("builtin:shakespeare").documents())
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


def test_threads_do_not_change_the_result(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    tokenizer = tokenizers.build({"kind": "gpt2", "max_ranks": 1000})
    one = prepared(jsonl(stories), tmp_path / "one", tokenizer=tokenizer)
    two = prepared(jsonl(stories), tmp_path / "two", tokenizer=tokenizer, num_threads=2)
    assert one.manifest == two.manifest


def test_progress_ends_at_the_size_of_the_source(tmp_path: Path, jsonl: Jsonl, stories: list[str]) -> None:
    source = open_source(jsonl(stories))
    calls: list[tuple[int, int]] = []
    prepare(source, ByteTokenizer(), tmp_path / "out", progress=lambda *call: calls.append(call))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (source.size_bytes, source.size_bytes)
    assert 0 < calls[0][0] < source.size_bytes


def test_a_long_text_is_encoded_in_pieces_to_the_ids_of_the_whole(tmp_path: Path) -> None:
    (text,) = (document.text for document in open_source("builtin:shakespeare").documents())
    tokenizer = tokenizers.build({"kind": "gpt2", "max_ranks": 1000})
    batches: list[Sequence[str]] = []
    encode_batch = tokenizer.encode_batch

    def watched(texts: Sequence[str], **options: int) -> Any:
        batches.append(texts)
        return encode_batch(texts, **options)

    tokenizer.encode_batch = watched  # type: ignore[method-assign]
    shards = prepared("builtin:shakespeare", tmp_path / "out", tokenizer=tokenizer)
    assert len(batches[0]) > 1
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
    ids, offsets = encode_with_special(SENTINELS, texts)
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
    path, seen = pair_lines(PAIRS), []
    prepared_pairs(path, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert size - 2 * len(PAIRS) <= seen[-2][0] <= size  # each text's share is rounded down


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
    path, tokenizer = jsonl(stories), ByteTokenizer()

    def full(texts: Sequence[str], **options: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "encode_batch", full)
    with pytest.raises(StorageError, match="no space left on device; nothing that was there is lost"):
        prepared(path, tmp_path / "out", tokenizer=tokenizer)
    assert left(tmp_path) == [path.name]


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
    tmp_path: Path, jsonl: Jsonl, stories: list[str]
) -> None:
    path, out = jsonl(stories), tmp_path / "out"
    overtaken = ByteTokenizer()
    results: list[Manifest] = []
    encode_batch = overtaken.encode_batch

    def overtake(texts: Sequence[str], **options: int) -> Any:
        if not results:
            results.append(prepare(open_source(path), ByteTokenizer(), out))
        return encode_batch(texts, **options)

    overtaken.encode_batch = overtake  # type: ignore[method-assign]
    assert prepare(open_source(path), overtaken, out) == results[0]
    assert sorted(left(tmp_path)) == ["out", path.name]


# Torch


def test_preparing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pellucid.data.prepare, pellucid.data.cache, pellucid.data.config\n"
        "import pellucid.data.order, pellucid.data.batch, pellucid.data.evaluation\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
