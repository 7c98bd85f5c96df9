"""Shards made on demand within a budget: the same batches as if all had been made first."""

import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pellucid import tokenizers
from pellucid.data import stream as stream_module
from pellucid.data.cache import open_stream
from pellucid.data.loader import TrainingLoader
from pellucid.data.objectives import Causal, Objective
from pellucid.data.order import TrainingOrder
from pellucid.data.shards import open_shards
from pellucid.data.sources import documents, open_source
from pellucid.data.sources.base import Reading
from pellucid.data.stream import STREAM, Stream, StreamConfig
from pellucid.errors import ConfigError, DataError
from pellucid.tokenizers import ByteConfig
from pellucid.tokenizers.accelerate import Encoder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

T = 32
SETTINGS = StreamConfig(enabled=True, shard_bytes=6000, cache_bytes=50_000, val_documents=60)
FULL = (1, 3, 5, 7, 8, 10, 12, 14, 15, 17, 19)
"""The shards of the folder's stream that have text: about 20,000 bytes each, so that the budget holds two."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three Parquet files of 200 documents in row groups of 50: 21 shards."""
    folder, rng = tmp_path_factory.mktemp("pages") / "pages", np.random.default_rng(0)
    folder.mkdir()
    words = ["".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(1000)]
    for number in range(3):
        texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(200)]
        pq.write_table(
            pa.table({"text": texts, "id": range(200)}), folder / f"{number}.parquet", row_group_size=50
        )
    return folder


@pytest.fixture
def opened(folder: Path, tmp_path: Path):
    """Opens streams, and ends their threads."""
    streams: list[Stream] = []

    def open_one(name: str = "stream", path: Path = folder, **changes: object) -> Stream:
        settings = SETTINGS.model_copy(update=changes)
        streams.append(Stream(open_source(path), tokenizers.build("byte"), tmp_path / name, settings))
        return streams[-1]

    yield open_one
    for stream in streams:
        stream.close()


def loader(data, *, seed: int = 1, tokens_per_epoch: int | None = None, objective: Objective | None = None):
    objective = objective or Causal(T)
    order = objective.order(data.train, seed=seed, shuffle_shards=2, tokens_per_epoch=tokens_per_epoch)
    return TrainingLoader(data.train, order, objective=objective, batch_windows=16, micro_batch=16)


def here(stream: Stream) -> set[str]:
    return {file.name for file in stream.directory.glob("train-*.bin")}


@pytest.mark.parametrize("tokens_per_epoch", [None, 50_000])
def test_batches_are_those_of_the_data_prepared_first(opened, tokens_per_epoch) -> None:
    stream, full = opened(), opened("full")
    full.complete()
    prepared = open_shards(full.directory)
    prepared.verify()
    assert full.bytes_here > 4 * SETTINGS.cache_bytes
    seen_bytes = 0
    with (
        loader(stream, tokens_per_epoch=tokens_per_epoch) as ours,
        loader(prepared, tokens_per_epoch=tokens_per_epoch) as theirs,
    ):
        for step in (*range(0, 500, 3), 7, 1200):  # through several epochs, then back and far ahead
            (one,), (other,) = ours.step(step), theirs.step(step)
            assert (one.inputs == other.inputs).all()
            assert (one.targets == other.targets).all()
            assert (one.origin.windows == other.origin.windows).all()
            seen_bytes = max(seen_bytes, stream.bytes_here)
    assert 0 < seen_bytes <= SETTINGS.cache_bytes
    assert len(here(stream)) < len(here(full))


def test_validation_is_the_first_documents_of_a_shard_and_training_leaves_them_out(opened, folder) -> None:
    stream = opened(val_shard=3, val_documents=7, cache_bytes=10**9)
    stream.complete()
    shards = open_shards(stream.directory)
    tokenizer = tokenizers.load(shards.tokenizer_directory)
    everything = [document.text for document in documents(open_source(folder))]

    def texts(split) -> list[str]:
        bounds = split.bounds.tolist()
        return [tokenizer.decode(split.read(a, b - 1)) for a, b in pairwise(bounds)]

    held_out = texts(shards.val)
    assert len(held_out) == 7
    first = everything.index(held_out[0])
    assert held_out == everything[first : first + 7]
    assert texts(shards.train) == everything[:first] + everything[first + 7 :]
    assert stream.val.text_bytes == sum(len(text.encode()) for text in held_out)


def test_a_shard_that_was_evicted_is_made_again_with_the_same_hash(opened) -> None:
    stream = opened(cache_bytes=1)
    once = np.array(stream.shard(3))
    assert here(stream) == {"train-00003.bin"}
    stream.shard(5)
    assert here(stream) == {"train-00005.bin"}
    assert len(once) > 9000
    assert (stream.shard(3) == once).all()
    stream.verify()


def test_sizes_stay_known_when_shards_are_evicted_and_nothing_is_made_to_find_a_place(
    opened, monkeypatch
) -> None:
    stream = opened()
    with loader(stream) as first:
        wanted = [first.step(step)[0].inputs for step in range(60)]
    again = opened()
    made: list[int] = []
    write = Stream._write
    monkeypatch.setattr(Stream, "_write", lambda self, number: made.append(number) or write(self, number))
    with loader(again) as second:
        assert (second.step(59)[0].inputs == wanted[59]).all()
    order = Causal(T).order(again.train, seed=1, shuffle_shards=2)
    in_use, following = order.upcoming(59 * 16)
    assert set(made) <= {*in_use, *following}


def test_a_source_that_has_changed_is_refused(opened, tmp_path, folder) -> None:
    stream = opened(cache_bytes=1)
    stream.shard(2), stream.shard(3)
    other = stream._source.portion_blocks
    stream._source.portion_blocks = lambda portion: (
        list(other(portion))[1:] or list(other(stream._portions[7]))
    )
    with pytest.raises(
        DataError, match=r"shard 2 was made again and is not what it was .*the source has changed"
    ):
        stream.shard(2)


def test_another_source_has_another_fingerprint_and_a_directory_of_its_own(folder, tmp_path) -> None:
    def of(**changes) -> Stream:
        settings = SETTINGS.model_copy(update=changes)
        return open_stream(str(folder), ByteConfig(), settings, cache_dir=tmp_path)

    streams = [of(), of(shard_bytes=9000), of(val_documents=5), of(cache_bytes=10**9)]
    prints = [stream.fingerprint for stream in streams]
    assert len(set(prints)) == 3
    assert prints[3] == prints[0]  # the budget changes no batch
    assert streams[3].directory == streams[0].directory
    for stream in streams:
        stream.close()


def test_a_budget_that_does_not_hold_the_shuffled_shards_is_refused(opened) -> None:
    stream = opened(cache_bytes=5_000)
    with (
        loader(stream) as ours,
        pytest.raises(
            ConfigError,
            match=r"data\.stream\.cache_bytes: 5,000 bytes do not hold the 2 shards .*data\.shuffle_shards",
        ),
    ):
        ours.step(0)


def test_bad_settings_and_sources_are_refused(opened, folder, tmp_path) -> None:
    with pytest.raises(
        ConfigError, match=r"val_shard: pages makes \d+ shard\(s\), counted from 0, and 99 is not one"
    ):
        opened("other", val_shard=99)
    text = tmp_path / "plain.txt"
    text.write_text("one running text")
    with pytest.raises(DataError, match=r"is one running text.*data\.document_marker"):
        open_stream(str(text), ByteConfig(), SETTINGS, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"there is no field 'story'"):
        open_stream(
            str(folder), ByteConfig(), SETTINGS, reading=Reading(text_field="story"), cache_dir=tmp_path
        )


def test_a_damaged_ledger_is_named(opened) -> None:
    stream = opened()
    (stream.directory / STREAM).write_text("{")
    with pytest.raises(DataError, match=r"stream\.json: cannot be read: .*made again"):
        opened()


def alter(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)


def lost_starts(stream: Stream) -> None:
    (stream.directory / "train-00001.starts").unlink()


def altered_ids(stream: Stream) -> None:
    alter(stream.directory / "train-00001.bin")


def altered_starts(stream: Stream) -> None:
    alter(stream.directory / "train-00001.starts")


@pytest.mark.parametrize("damage", [altered_ids, altered_starts, lost_starts])
@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_a_damaged_shard_is_made_again(opened, damage, when, caplog) -> None:
    stream = opened()
    wanted, kept = np.array(stream.shard(1)), np.array(stream.shard(3))
    files = {file.name: file.read_bytes() for file in stream.directory.glob("train-*")}
    if when == "before it is opened":
        damage(stream)
        stream = opened()
    else:
        damage(stream)
    stream.verify()
    assert {file.name for file in stream.directory.glob("train-*")} == {
        "train-00003.bin",
        "train-00003.starts",
    }
    assert [(r.levelname, "train-00001" in r.message) for r in caplog.records] == [("WARNING", True)]
    assert (stream.shard(1) == wanted).all()
    assert (stream.shard(3) == kept).all()
    assert {file.name: file.read_bytes() for file in stream.directory.glob("train-*")} == files
    stream.verify()
    assert len(caplog.records) == 1


def test_a_shard_without_its_starts_is_not_taken_for_whole(opened) -> None:
    stream = opened()
    stream.shard(1)
    lost_starts(stream)
    opened().shard(1)
    assert (stream.directory / "train-00001.starts").is_file()


@pytest.mark.parametrize("damage", [alter, Path.unlink])
@pytest.mark.parametrize("suffix", ["bin", "starts"])
def test_damaged_validation_is_made_again(opened, damage, suffix, caplog) -> None:
    stream = opened()
    wanted, file = np.array(stream.val.shards[0]), stream.directory / f"val-00000.{suffix}"
    before = file.read_bytes()
    damage(file)
    for one in (opened(), stream):
        one.verify()
        assert file.read_bytes() == before
        assert (one.val.shards[0] == wanted).all()
        assert one.val.text_bytes == stream._ledger.val.bytes
        damage(file)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_validation_that_comes_out_otherwise_is_refused_and_not_kept(opened) -> None:
    stream = opened()
    alter(stream.directory / "val-00000.bin")
    blocks = stream._source.portion_blocks
    stream._source.portion_blocks = lambda portion: blocks(stream._portions[3])
    with pytest.raises(DataError, match=r"the validation shard was made again and is not what it was"):
        stream.verify()
    assert not (stream.directory / "val-00000.bin").exists()


def test_a_damaged_file_that_cannot_be_removed_is_an_error(opened, monkeypatch) -> None:
    stream = opened()
    stream.shard(1)
    alter(stream.directory / "train-00001.bin")
    monkeypatch.setattr(Path, "unlink", refusing("train-00001.bin"))
    with pytest.raises(DataError, match=r"train-00001\.bin: is damaged, and another process has it open"):
        stream.verify()


def refusing(*names: str):
    """`Path.unlink` as on Windows, for files that a process has mapped."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name in names:
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok=missing_ok)

    return refuse


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_faster_encoder_is_proved_on_the_first_texts_and_the_outcome_kept(
    opened, folder, monkeypatch, is_equal
) -> None:
    samples: list[list[str]] = []
    encoded: list[int] = []

    def fastest(tokenizer, sample=()) -> Encoder:
        def encode_batch(texts, *, num_threads=1):
            encoded.append(len(texts))
            return tokenizer.encode_batch(texts, num_threads=num_threads)

        samples.append(list(sample))
        return Encoder("fast", encode_batch, "fast", is_accelerated=is_equal)

    monkeypatch.setattr(stream_module, "fastest_encoder", fastest)
    monkeypatch.setattr(stream_module, "SAMPLE_CHARACTERS", 4000)
    source = open_source(folder)
    portions, asked = source.portion_blocks, []
    source.portion_blocks = lambda portion: asked.append(portion) or portions(portion)

    def stream() -> Stream:
        streams.append(Stream(source, tokenizers.build("byte"), opened().directory.parent / "own", SETTINGS))
        return streams[-1]

    opened()  # its directory's parent is where `own` lies
    samples.clear(), encoded.clear()
    streams: list[Stream] = []
    first = stream()
    (sample,) = [sample for sample in samples if sample]
    everything = [document.text for document in documents(open_source(folder))]
    assert sample == everything[: len(sample)]
    assert 4000 <= len("".join(sample)) < 40_000
    assert len(asked) == 1  # what proves it is read once
    assert sum(encoded) == first._ledger.val.documents
    samples.clear(), encoded.clear()
    again = stream()
    again.shard(3)
    assert len(asked) == 2
    assert samples.count([]) == len(samples) == (2 if is_equal else 0)
    assert bool(encoded) == is_equal
    assert (again.val.shards[0] == first.val.shards[0]).all()
    for one in streams:
        one.close()


def test_two_streams_in_one_directory_agree(opened) -> None:
    """As two runs on one machine do: both make shards, and both find what the other has made."""
    streams = [opened(), opened()]
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def read(which: int) -> None:
        for number in range(8):
            found[which].append(np.array(streams[which].shard(number if which else 7 - number)))

    threads = [threading.Thread(target=read, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found[0]) == len(found[1]) == 8
    assert all((a == b).all() for a, b in zip(found[0], reversed(found[1]), strict=True))


def test_a_stream_whose_shards_another_one_evicted_verifies_what_is_left(opened, caplog) -> None:
    ours = opened()
    wanted = {number: np.array(ours.shard(number)) for number in (1, 3)}
    theirs = opened(cache_bytes=1)
    theirs.shard(5)
    assert here(ours) == {"train-00005.bin"}
    ours.verify()
    assert ours.bytes_here == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert all((ours.shard(number) == ids).all() for number, ids in wanted.items())


def lying_bytes(stream: Stream) -> int:
    return sum(file.stat().st_size for file in stream.directory.glob("train-*"))


def budget(stream: Stream, cache_bytes: int) -> None:
    stream._settings = SETTINGS.model_copy(update={"cache_bytes": cache_bytes})


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """The shards that streams make."""
    made: list[int] = []
    write = Stream._write
    monkeypatch.setattr(Stream, "_write", lambda self, number: made.append(number) or write(self, number))
    return made


def test_two_streams_in_one_directory_keep_the_budget_together(opened) -> None:
    ours, theirs = opened(), opened()
    for one, other in zip(FULL, FULL[::-1], strict=True):
        ours.shard(one)
        assert 0 < lying_bytes(ours) <= SETTINGS.cache_bytes
        theirs.shard(other)
        assert 0 < lying_bytes(ours) <= SETTINGS.cache_bytes


def test_of_what_other_streams_have_read_the_one_unused_for_longest_goes_first(opened) -> None:
    ours, theirs, sizes = opened(), opened(cache_bytes=10**9), opened("sizes")
    for number in (1, 3, 5):
        theirs.shard(number)
    for file in ours.directory.glob("train-00003.*"):
        os.utime(file, (1, 1))
    sizes.shard(7)
    budget(ours, lying_bytes(ours) + lying_bytes(sizes) - 1)
    ours.shard(7)
    assert here(ours) == {"train-00001.bin", "train-00005.bin", "train-00007.bin"}


def test_what_a_run_still_reads_counts_although_another_has_removed_it(opened) -> None:
    ours, sizes = opened(cache_bytes=80_000), opened("sizes")
    for number in (1, 3, 5):
        ours.shard(number)
    opened(cache_bytes=1).shard(7)
    assert here(ours) == {"train-00007.bin"}
    sizes.shard(8)
    budget(ours, ours.bytes_here + lying_bytes(ours) + lying_bytes(sizes) - 1)
    ours.shard(8)
    assert [*ours._mapped] == [3, 5, 8]
    assert here(ours) == {"train-00007.bin", "train-00008.bin"}


def test_the_shards_in_use_stay_where_another_stream_has_filled_the_budget(opened, made) -> None:
    ours, theirs = opened(cache_bytes=65_000), opened(cache_bytes=65_000)
    for number in (8, 10, 12):
        theirs.shard(number)
    assert here(ours) == {"train-00008.bin", "train-00010.bin", "train-00012.bin"}
    made.clear()
    for following in ([], [5], [5], [5]):
        ours.expect([1, 3], following)
        ours._thread.submit(int).result()
        ours.shard(1), ours.shard(3)
    assert sorted(made) == [1, 3, 5]
    assert lying_bytes(ours) <= 65_000


def test_what_is_made_ahead_takes_no_room_from_what_is_in_use(opened, made) -> None:
    stream = opened()
    stream.expect([1, 3], [])
    stream.shard(1), stream.shard(3)
    stream._start(5, is_ahead=True).result()  # left over from a place that training has jumped away from
    assert made == [1, 3]
    assert stream.tokens_of(5) > 9000
    assert here(stream) == {"train-00001.bin", "train-00003.bin"}


def test_a_size_that_is_asked_for_comes_although_there_is_no_room_to_make_ahead(opened, made) -> None:
    stream, gate = opened(), threading.Event()
    stream.expect([1, 3], [])
    stream.shard(1), stream.shard(3)
    stream._thread.submit(gate.wait)
    ahead = stream._start(5, is_ahead=True)
    threading.Timer(0.2, gate.set).start()
    assert stream.tokens_of(5) > 9000
    assert ahead.done()
    assert made == [1, 3, 5]


def test_steps_that_go_on_to_the_next_shards_make_each_once(opened, made) -> None:
    """Where the budget holds the shards in use and no more."""
    sizes = opened("sizes", cache_bytes=10**9)
    sizes.complete()
    bytes_of = [sum(sizes._sizes(sizes._made[number].record)) for number in FULL[:6]]
    stream = opened(cache_bytes=max(sum(bytes_of[n : n + 3]) for n in range(4)))
    for number in FULL[:6]:
        stream.tokens_of(number)
    made.clear()
    stream.expect([1, 3, 5], [7, 8, 10])
    for number in (1, 3, 5, 3, 1, 5, 7, 8, 10, 7, 10, 8, 7):
        stream.shard(number)
    assert set(made) >= {1, 3, 5}
    assert len(made) == len(set(made))
    assert here(stream) == {"train-00007.bin", "train-00008.bin", "train-00010.bin"}


def test_shards_that_the_ledger_does_not_know_are_removed(opened) -> None:
    """A kill between a shard's last rename and its line in the ledger leaves them."""
    stream = opened()
    stream.shard(3)
    for file in [*stream.directory.glob("train-00003.*")]:
        file.with_stem("train-00019").write_bytes(file.read_bytes())
    stream.shard(5)
    assert here(stream) == {"train-00003.bin", "train-00005.bin"}
    (stream.directory / "train-00008.starts").write_bytes(b"")
    opened()
    assert {file.stem for file in stream.directory.glob("train-*")} == {"train-00003", "train-00005"}


def test_files_that_cannot_be_removed_now_are_removed_later(opened, monkeypatch) -> None:
    stream = opened(cache_bytes=1)
    wanted = np.array(stream.shard(1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refusing("train-00001.bin"))
        stream.shard(3)
        assert here(stream) == {"train-00001.bin", "train-00003.bin"}
        assert (stream.shard(1) == wanted).all()
        stream.shard(5)
        assert here(stream) == {"train-00001.bin", "train-00005.bin"}
    stream.shard(7)
    assert here(stream) == {"train-00007.bin"}


def test_an_order_asks_for_the_sizes_of_the_block_in_use_alone() -> None:
    asked: list[int] = []

    class Sizes(list[int]):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    known = TrainingOrder([100] * 20, 10, seed=3, shuffle_shards=4, tokens_per_epoch=700)
    order = TrainingOrder(
        Sizes([100] * 20), 10, seed=3, shuffle_shards=4, tokens_per_epoch=700, is_known=False
    )
    assert [order.locate(n) for n in range(30)] == [known.locate(n) for n in range(30)]
    assert len(set(asked)) == 4
    assert [order.locate(n) for n in range(400)] == [known.locate(n) for n in range(400)]
    assert order.windows_per_epoch == known.windows_per_epoch == 70
    unlimited = TrainingOrder([100] * 20, 10, seed=3, shuffle_shards=4, is_known=False)
    everything = TrainingOrder([100] * 20, 10, seed=3, shuffle_shards=4)
    assert [unlimited.locate(n) for n in range(500)] == [everything.locate(n) for n in range(500)]


def test_what_comes_next_is_known_before_it_is_needed() -> None:
    order = TrainingOrder([100] * 6, 10, seed=0, shuffle_shards=2)
    blocks = [{order.locate(n).shard for n in range(start, start + 20)} for start in range(0, 80, 20)]
    for number, block in enumerate(blocks[:-1]):
        in_use, following = order.upcoming(number * 20 + 5)
        assert set(in_use) == block
        assert set(following) == blocks[number + 1]


def test_documents_left_out_beside_validation_are_counted_too(tmp_path) -> None:
    file = tmp_path / "bad.jsonl"
    lines = ['{"text": "a good document"}', '{"text": 7}', "{"] * 20
    file.write_text("\n".join(lines))
    settings = SETTINGS.model_copy(update={"shard_bytes": 10**6, "val_documents": 5})
    source = open_source(file, errors="skip")
    stream = Stream(source, tokenizers.build("byte"), tmp_path / "stream", settings)
    manifest = stream.complete()
    stream.close()
    assert (manifest.val.documents, manifest.train.documents) == (5, 15)
    assert sum(manifest.left_out.values()) == 40
