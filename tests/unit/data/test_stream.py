"""Shards made on demand within a budget: the same batches as if all had been made first."""

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pellucid import tokenizers
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

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

T = 32
SETTINGS = StreamConfig(enabled=True, shard_bytes=6000, cache_bytes=50_000, val_documents=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three Parquet files of 200 documents in row groups of 50: twelve shards or so."""
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
    stream, full = opened(), opened("full", cache_bytes=10**9)
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
    once = np.array(stream.shard(4))
    assert here(stream) == {"train-00004.bin"}
    stream.shard(5)
    assert here(stream) == {"train-00005.bin"}
    assert (stream.shard(4) == once).all()
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


def test_a_shard_altered_on_the_disk_is_found(opened) -> None:
    stream = opened()
    stream.shard(1)
    file = stream.directory / "train-00001.bin"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"train-00001\.bin: the file was altered"):
        opened().verify()


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
