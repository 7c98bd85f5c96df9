"""What holds for any data: the order is a permutation that nothing but the seed changes; nothing is lost."""

import hashlib
import json
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import tokenizers
from pellucid.data.batch import gather
from pellucid.data.encoding import pieces
from pellucid.data.evaluation import evaluation_batches, scored_tokens
from pellucid.data.loader import TrainingLoader
from pellucid.data.objectives import Paired
from pellucid.data.objectives.prefix import Cut
from pellucid.data.objectives.span_corruption import corrupt, noise, segments
from pellucid.data.order import TrainingOrder, Window
from pellucid.data.prepare import prepare
from pellucid.data.progress import Progress
from pellucid.data.shards import ShardWriter, Split, open_shards
from pellucid.data.sources import content, open_source
from pellucid.errors import TokenizerError
from pellucid.runtime.seeding import derive, permutation
from pellucid.tokenizers import ByteTokenizer, Tokenizer

SEEDS = st.integers(0, 2**63 - 1)
SHARDS = st.lists(st.integers(1, 120), min_size=1, max_size=7)


@st.composite
def orders(draw: st.DrawFn) -> TrainingOrder:
    shards = draw(SHARDS)
    seq_len = draw(st.integers(1, 20).filter(lambda length: length < max(shards)))
    return TrainingOrder(shards, seq_len, seed=draw(SEEDS), shuffle_shards=draw(st.integers(1, 8)))


def epoch(order: TrainingOrder, number: int) -> list[Window]:
    count = order.windows_per_epoch
    return [order.locate(number * count + index) for index in range(count)]


# The order


@given(orders(), st.integers(0, 5))
def test_an_epoch_has_each_token_as_a_target_once_but_for_the_rest_of_each_shard(
    order: TrainingOrder, number: int
) -> None:
    T = order.seq_len
    targets = Counter(
        (window.shard, (window.start + t) % order.shard_tokens[window.shard])
        for window in epoch(order, number)
        for t in range(1, T + 1)
    )
    assert set(targets.values()) == {1}
    for shard, tokens in enumerate(order.shard_tokens):
        seen = sum(1 for where, _ in targets if where == shard)
        assert seen == (tokens - tokens % T if tokens > T else 0)


def whole_epoch(
    shards: tuple[int, ...], T: int, seed: int, shuffle_shards: int, number: int
) -> list[tuple[int, int]]:
    """The order written out as the documentation of `pellucid.data.order` tells it."""
    result: list[tuple[int, int]] = []
    shard_order = permutation(len(shards), derive(seed, "shards", number)).tolist()
    for block, begin in enumerate(range(0, len(shards), shuffle_shards)):
        windows = [
            (shard, (derive(seed, "first window", number, shard) % shards[shard] + i * T) % shards[shard])
            for shard in shard_order[begin : begin + shuffle_shards]
            if shards[shard] >= T + 1
            for i in range(shards[shard] // T)
        ]
        result += [windows[i] for i in permutation(len(windows), derive(seed, "windows", number, block))]
    return result


@settings(deadline=None)
@given(SHARDS, st.integers(1, 20), SEEDS, st.integers(1, 8), st.integers(0, 3))
def test_a_window_is_located_where_the_written_out_order_has_it(
    shards: list[int], T: int, seed: int, shuffle_shards: int, number: int
) -> None:
    shards = [*shards, T + 1]
    order = TrainingOrder(shards, T, seed=seed, shuffle_shards=shuffle_shards)
    found = [(window.shard, window.start) for window in epoch(order, number)]
    assert found == whole_epoch(tuple(shards), T, seed, shuffle_shards, number)


@given(orders(), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_a_window_is_the_same_whatever_was_asked_before(order: TrainingOrder, numbers: list[int]) -> None:
    fresh = TrainingOrder(
        order.shard_tokens, order.seq_len, seed=order._seed, shuffle_shards=order._shuffle_shards
    )
    in_order = {number: fresh.locate(number) for number in sorted(numbers)}
    assert [order.locate(number) for number in numbers] == [in_order[number] for number in numbers]


@given(orders(), st.integers(0, 50), st.integers(1, 6), st.integers(1, 4))
def test_the_global_batch_does_not_depend_on_the_number_of_processes(
    order: TrainingOrder, step: int, share: int, world: int
) -> None:
    whole = order.step(step, share * world)
    ranks = [order.step(step, share * world, rank=rank, world=world) for rank in range(world)]
    assert [window for turn in zip(*ranks, strict=True) for window in turn] == whole
    assert [window.number for window in whole] == list(
        range(step * share * world, (step + 1) * share * world)
    )


@settings(max_examples=25, deadline=None)
@given(orders(), st.integers(0, 30), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_a_loader_that_starts_at_any_step_gives_what_one_that_came_there_gives(
    order: TrainingOrder, start: int, batch: int, micro_batch: int, read_ahead: int
) -> None:
    split = Split(
        "train", tuple(np.arange(n, dtype=np.uint16) + 1000 * i for i, n in enumerate(order.shard_tokens))
    )
    with TrainingLoader(
        split, order, batch_windows=batch, micro_batch=micro_batch, read_ahead=read_ahead
    ) as loader:
        for step in range(start, start + 3):
            inputs = np.concatenate([part.inputs.numpy() for part in loader.step(step)])
            assert (inputs == gather(split, order.step(step, batch), order.seq_len).inputs).all()


# Evaluation


@given(SHARDS, st.integers(1, 20), st.integers(1, 5), st.none() | st.integers(1, 300))
def test_evaluation_scores_each_token_after_a_shards_first_once_and_in_order(
    lengths: list[int], seq_len: int, rows: int, max_tokens: int | None
) -> None:
    split = Split("val", tuple(np.arange(n, dtype=np.uint16) + 1000 * i for i, n in enumerate([*lengths, 2])))
    batches = list(evaluation_batches(split, seq_len, rows, max_tokens))
    assert {batch.inputs.shape for batch in batches} == {(rows, seq_len)}
    scored = [batch.weights == 1 for batch in batches]
    targets = np.concatenate([batch.targets[mask] for batch, mask in zip(batches, scored, strict=True)])
    contexts = np.concatenate([batch.inputs[mask] for batch, mask in zip(batches, scored, strict=True)])
    wanted = np.concatenate([shard[1:] for shard in split.shards])[:max_tokens]
    assert targets.tolist() == wanted.tolist()
    assert contexts.tolist() == (wanted - 1).tolist()
    assert len(targets) == scored_tokens(split, max_tokens) == sum(batch.weights.sum() for batch in batches)


# Objectives

FRACTIONS = st.floats(0.01, 0.99)
MEANS = st.floats(1, 20)


def put_together(source: list[int], target: list[int], first_sentinel: int) -> list[int]:
    """The window again: each sentinel of the source replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token >= first_sentinel:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    assert spans.pop(target[-1]) == []  # the final sentinel, which no span has
    assert all(spans.values())
    assert [token for token in source if token >= first_sentinel] == list(spans)
    return [token for mark in source for token in spans.get(mark, [mark])]


@settings(deadline=None)
@given(st.integers(2, 300), FRACTIONS, MEANS, SEEDS)
def test_a_corrupted_window_can_be_put_together_again(
    length: int, density: float, mean: float, key: int
) -> None:
    count, spans = noise(length, density, mean)
    kept, cut = segments(length - count, spans, derive(key, "a")), segments(count, spans, derive(key, "b"))
    assert (kept.sum(), cut.sum(), len(kept), len(cut)) == (length - count, count, spans, spans)
    assert min(kept.min(), cut.min()) >= 1
    source, target = corrupt(
        np.arange(length, dtype=np.uint16), np.arange(1000, 1000 + spans + 1), kept=kept, cut=cut
    )
    assert (len(source), len(target)) == (length - count + spans, count + spans + 1)
    assert put_together(source.tolist(), target.tolist(), 1000) == list(range(length))


@settings(deadline=None)
@given(st.integers(2, 300), FRACTIONS, MEANS)
def test_a_shorter_window_never_needs_more_room(length: int, density: float, mean: float) -> None:
    """So the last window of a shard fits the shapes of the whole ones."""
    sizes = [
        (n - cut + spans, cut + spans)
        for n in range(2, length + 1)
        for cut, spans in [noise(n, density, mean)]
    ]
    assert [source for source, _ in sizes] == sorted(source for source, _ in sizes)
    assert max(target for _, target in sizes) == sizes[-1][1]


@settings(deadline=None)
@given(st.integers(2, 300), st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), SEEDS)
def test_a_window_is_cut_within_the_fractions_and_a_shorter_one_needs_no_more_room(
    length: int, fractions: list[float], key: int
) -> None:
    cut = Cut(*fractions)
    for n in range(2, length + 1):
        shortest, longest = cut.between(n)
        assert 1 <= shortest <= cut.place(n, key) <= longest <= n - 1
        assert longest <= cut.between(length)[1]
        assert n - shortest <= length - cut.between(length)[0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcdefgh", min_size=1, max_size=12), st.text("xyz", min_size=1, max_size=12)),
             min_size=2, max_size=20, unique=True),
    st.integers(1, 40),
    FRACTIONS,
)  # fmt: skip
def test_pairs_are_read_back_whole_wherever_shards_are_cut(
    pairs: list[tuple[str, str]], shard_tokens: int, fraction: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "a.jsonl", Path(name) / "out"
        lines = [json.dumps({"q": source, "a": target}) + "\n" for source, target in pairs]
        path.write_text("".join(lines), encoding="utf-8")
        source = open_source(path, pair_fields=("q", "a"))
        prepare(source, ByteTokenizer(), out, val_fraction=fraction, shard_tokens=shard_tokens)
        shards, objective = open_shards(out), Paired(13, start_id=256)
        found: list[tuple[str, str]] = []
        for split in (shards.train, shards.val):
            for batch in objective.evaluation_batches(split, 3):
                for row in range(3):
                    if batch.origin.windows[row] >= 0:
                        source_ids = batch.encoder_inputs[row][batch.encoder_documents[row] == 0]
                        target_ids = batch.targets[row][batch.weights[row] > 0]
                        assert target_ids[-1] == 256
                        texts = (
                            bytes(ids.astype(np.uint8)).decode() for ids in (source_ids, target_ids[:-1])
                        )
                        found.append(tuple(texts))
        del shards, split, batch
    assert sorted(found) == sorted(pairs)


@settings(deadline=None)
@given(SHARDS, st.integers(0, 900), st.integers(0, 300))
def test_ids_are_read_across_the_borders_of_shards(lengths: list[int], start: int, count: int) -> None:
    flat = np.arange(sum(lengths), dtype=np.uint16)
    split = Split("train", tuple(np.split(flat, np.cumsum(lengths)[:-1])))
    stop = min(start + count, len(flat))
    start = min(start, stop)
    assert split.read(start, stop).tolist() == list(range(start, stop))


# Shards and preparation


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 999), max_size=30), max_size=8),
    st.integers(1, 25),
    st.sampled_from(["uint16", "uint32"]),
    st.sets(st.integers(1, 8), max_size=3),
)
def test_what_is_written_to_shards_is_read_back_whoever_wrote_on(
    documents: list[list[int]], shard_tokens: int, dtype: str, kills: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = ShardWriter(folder, "train", dtype=dtype, shard_tokens=shard_tokens)
        for number, document in enumerate(documents):
            if number in kills:  # written on by another writer, which cuts off what no state vouches for
                state = writer.sync()
                writer.write(np.arange(37, dtype=np.uint32), np.array([0], dtype=np.int64))
                writer.close()
                writer = ShardWriter(folder, "train", dtype=dtype, shard_tokens=shard_tokens, state=state)
            writer.write(
                np.array(document, dtype=np.uint32), np.array([0] if document else [], dtype=np.int64)
            )
        records = writer.finish()
        ids: list[int] = []
        starts: list[int] = []
        for record in records:
            starts += (np.fromfile(folder / f"{record.name}.starts", "<u8").astype(int) + len(ids)).tolist()
            ids += np.fromfile(folder / f"{record.name}.bin", f"<{dtype[0]}{int(dtype[4:]) // 8}").tolist()
    full = [document for document in documents if document]
    assert ids == [token for document in full for token in document]
    assert starts == np.cumsum([0, *map(len, full)]).tolist()[: len(full)]
    assert sum(record.documents for record in records) == len(full)
    assert all(record.tokens == shard_tokens for record in records[:-1])


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(TEXTS, min_size=2, max_size=20, unique=True),
    st.floats(0.01, 0.99),
    st.integers(20, 90),
    st.randoms(),
)
def test_preparing_loses_nothing_and_splits_by_text_alone(
    texts: list[str], fraction: float, shard_tokens: int, random: object
) -> None:
    sides: list[tuple[list[str], list[str]]] = []
    for order in (texts, sorted(texts, key=lambda text: random.random())):  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.jsonl"
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in order), encoding="utf-8")
            out = Path(name) / "out"
            prepare(open_source(path), ByteTokenizer(), out, val_fraction=fraction, shard_tokens=shard_tokens)
            shards = open_shards(out)
            shards.verify()
            sides.append((documents(shards.train), documents(shards.val)))
            del shards
        train, val = sides[-1]
        assert sorted([*train, *val]) == sorted(texts)
        assert train
        assert val
        assert max(map(content_hash, val)) < min(map(content_hash, train))
        assert train == [text for text in order if text in set(train)]
    assert sorted(sides[0][1]) == sorted(sides[1][1])


def content_hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(TEXTS | st.just(""), min_size=2, max_size=40).filter(lambda texts: len({*texts, ""}) > 2),
    deduplicate=st.booleans(),
    workers=st.integers(1, 3),
    kills=st.lists(st.integers(1, 6), max_size=4),
    save_every_s=st.sampled_from([0.0, 10.0]),
    shard_tokens=st.integers(20, 150),
)
def test_neither_workers_nor_interruptions_change_a_byte(
    texts: list[str],
    deduplicate: bool,
    workers: int,
    kills: list[int],
    save_every_s: float,
    shard_tokens: int,
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        path = Path(name) / "a.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")

        def made(out: str, workers: int, stop_after: int | None = None) -> dict[str, bytes]:
            def stop(progress: Progress) -> None:
                nonlocal stop_after
                if stop_after is not None:
                    stop_after -= 1
                    if stop_after == 0:
                        raise KeyboardInterrupt

            prepare(
                open_source(path),
                ByteTokenizer(),
                Path(name) / out,
                deduplicate=deduplicate,
                workers=workers,
                shard_tokens=shard_tokens,
                save_every_s=save_every_s,
                progress=stop,
            )
            files = (file for file in (Path(name) / out).rglob("*") if file.is_file())
            return {file.name: file.read_bytes() for file in files}

        whole = made("whole", 1)
        patch.setattr(content, "BLOCK_BYTES", 60)
        for blocks in kills:
            with suppress(KeyboardInterrupt):
                made("out", workers, blocks)
        assert made("out", workers) == whole
        manifest = json.loads(whole["manifest.json"])
        full = [text for text in texts if text]
        kept = len(set(full)) if deduplicate else len(full)
        assert manifest["left_out"].get("empty", 0) == len(texts) - len(full)
        assert sum(manifest[side]["documents"] for side in ("train", "val")) == kept


def documents(split: Split) -> list[str]:
    ids = np.concatenate(split.shards)
    ends = np.flatnonzero(ids == 256)
    return [bytes(part[:-1].astype(np.uint8)).decode() for part in np.split(ids, ends + 1)[:-1]]


@pytest.fixture(scope="module", params=["gpt2", "p50k_base", "cl100k_base", "o200k_base"])
def bpe(request: pytest.FixtureRequest) -> Tokenizer:
    try:
        return tokenizers.build(request.param)
    except TokenizerError as error:
        pytest.skip(f"no ranks of {request.param} on this machine: {error}")


PROSE = st.text(st.sampled_from("aZé9_'/.,;ſ☃你\u0301 \u00a0\t\n\r"), max_size=200)


@settings(deadline=None)
@given(text=PROSE | st.text(max_size=100), size=st.integers(1, 20))
def test_the_ids_of_the_pieces_are_the_ids_of_the_text(bpe: Tokenizer, text: str, size: int) -> None:
    parts = list(pieces(text, 0, len(text), size=size))
    assert "".join(parts) == text
    ids, _ = bpe.encode_batch(parts)
    assert ids.tolist() == bpe.encode(text).tolist()
