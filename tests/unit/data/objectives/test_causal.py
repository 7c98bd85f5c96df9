"""Causal rows packed by best fit. Contiguous windows are in tests/unit/data/test_objectives.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.config import from_tree
from pellucid.data.evaluation import evaluation_batches
from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.data.objectives import Causal, CausalConfig
from pellucid.data.order import Window
from pellucid.data.prepare import prepare
from pellucid.data.shards import Split, open_shards
from pellucid.data.sources import open_source
from pellucid.errors import ConfigError, DataError
from pellucid.model import DecoderConfig
from pellucid.tokenizers import ByteTokenizer

END = 256
LENGTHS = [3, 11, 2, 7, 5, 20, 1, 4]


@pytest.fixture
def documents() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[*rng.integers(0, 256, n - 1).tolist(), END] for n in LENGTHS]


@pytest.fixture
def split(documents: list[list[int]]) -> Split:
    starts = np.cumsum([0, *LENGTHS])[:-1].astype(np.uint64)
    return Split("train", (np.concatenate(documents).astype(np.uint16),), (starts,))


def build(*, seq_len: int = 8, is_encoder_decoder: bool = False, tokenizer=None):
    return CausalConfig(packing="best_fit").build(
        tokenizer=tokenizer or ByteTokenizer(), is_encoder_decoder=is_encoder_decoder, seq_len=seq_len
    )


def test_contiguous_stays_the_default() -> None:
    assert CausalConfig().packing == "contiguous"
    built = CausalConfig().build(tokenizer=ByteTokenizer(), is_encoder_decoder=False, seq_len=8)
    assert type(built) is Causal
    assert isinstance(
        build(), Causal
    )  # by which evaluation counts the marks between documents as text to be told
    with pytest.raises(ConfigError, match=r"packing.*'contiguous' or 'best_fit'"):
        from_tree(CausalConfig, {"packing": "bestfit"})


def test_a_row_of_pieces_written_out() -> None:
    ids = [1, 2, 3, 4, 5, END, 6, END]
    text = Split("train", (np.array(ids, dtype=np.uint16),), (np.array([0, 6], dtype=np.uint64),))
    batch = build(seq_len=5).batch(text, [Window(0, 0, 0, row) for row in (1, 0)])
    assert batch.inputs.tolist() == [[5, END, 6, 0, 0], [END, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [[END, 6, END, 0, 0], [1, 2, 3, 4, 5]]
    assert batch.weights.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.documents.tolist() == [[0, 1, 1, -1, -1], [0] * 5]
    assert batch.positions.tolist() == [[0, 0, 1, 0, 0], [0, 1, 2, 3, 4]]
    assert batch.origin.starts.tolist() == [1, 0]


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.objective\.kind 'causal' .* model\.kind is"):
        build(is_encoder_decoder=True)


@pytest.mark.parametrize("position", ["rope", "learned", "alibi"])
def test_a_packed_row_is_each_document_alone(documents, split, position: str) -> None:
    config = from_tree(
        DecoderConfig,
        {
            "vocab_size": 257,
            "d_model": 16,
            "num_heads": 2,
            "num_layers": 2,
            "max_seq_len": 24,
            "position": {"kind": position},
        },
    )
    torch.manual_seed(0)
    model = config.build().double().eval()
    objective = build(seq_len=24)
    (batch,) = objective.evaluation_batches(split, sum(objective.extents(split)))
    assert (batch.documents == 3).any()  # four documents in a row
    with torch.no_grad():
        packed = model.head(model.hidden(**TensorBatch.of(batch).model_inputs()).states)
        alone = {tuple(document): model(torch.tensor([[END, *document[:-1]]]))[0] for document in documents}
    compared = 0
    for row, numbers in enumerate(batch.documents):
        for number in range(numbers.max() + 1):
            inside = numbers == number
            wanted = alone.pop(tuple(batch.targets[row][inside].tolist()))
            torch.testing.assert_close(packed[row][torch.from_numpy(inside)], wanted, rtol=0, atol=1e-10)
            compared += 1
    assert compared == len(documents)
    assert packed.isfinite().all()


def test_one_unmarked_text_is_scored_as_contiguous_windows_score_it() -> None:
    text = Split("text", (np.arange(50, dtype=np.uint16),))
    packed = list(build(seq_len=8).evaluation_batches(text, 3))
    for found, wanted in zip(packed, evaluation_batches(text, 8, 3), strict=True):
        assert np.array_equal(found.inputs, wanted.inputs)
        assert np.array_equal(found.targets, wanted.targets)
        assert np.array_equal(found.weights, wanted.weights)


def test_a_loader_gives_the_same_rows_from_any_step(split: Split) -> None:
    objective = build()
    order = objective.order(split, seed=3)
    options = {"objective": objective, "batch_windows": 4}
    with TrainingLoader(split, order, **options, micro_batch=4) as straight:
        steps = [straight.step(step)[0].inputs.tolist() for step in range(5)]
    with TrainingLoader(split, order, **options, micro_batch=3, read_ahead=0) as resumed:
        later = [torch.cat([part.inputs for part in resumed.step(step)]).tolist() for step in (3, 4)]
    assert later == steps[3:]


def test_a_row_counts_as_a_window_where_an_epoch_is_limited(split: Split) -> None:
    objective = build()
    assert objective.order(split, seed=0).windows_per_epoch == sum(objective.extents(split)) == 7
    assert objective.order(split, seed=0, tokens_per_epoch=3 * 8 + 7).windows_per_epoch == 3
    with pytest.raises(ConfigError, match=r"data\.tokens_per_epoch: 7 is less than a row, .* \(8\) tokens"):
        objective.order(split, seed=0, tokens_per_epoch=7)


def test_too_little_to_train_on_or_to_score(split: Split) -> None:
    with pytest.raises(
        DataError, match=r"^training split: its documents fill 1 row\(s\) of train\.seq_len 64"
    ):
        build(seq_len=64).order(split, seed=0)
    lone = Split("val", (np.arange(5, dtype=np.uint16),), (np.arange(5, dtype=np.uint64),))
    with pytest.raises(DataError, match=r"^validation split: 5 token\(s\), none of which has one before it"):
        build().evaluation_batches(lone, 1)  # at once, not when it is read
    with pytest.raises(DataError, match=r"^text: 0 token\(s\)"):
        build().evaluation_batches(Split("text", ()), 1)
    for sizes in ((0, 5), (1, 0)):
        with pytest.raises(ConfigError, match="of at least 1, not"):
            build().evaluation_batches(split, *sizes)


def test_a_stream_whose_documents_are_not_known_yet_is_refused(split: Split) -> None:
    class Streamed(Split):
        is_complete = False

    with pytest.raises(
        ConfigError, match=r"packing 'best_fit' .*data\.stream .*packing=contiguous, or prepare"
    ):
        build().order(Streamed("train", split.shards, split.starts), seed=0)


def test_prepared_documents_are_packed_across_shards(tmp_path: Path) -> None:
    texts = [f"{'word ' * (number % 9)}{number}." for number in range(60)]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    tokenizer = ByteTokenizer()
    prepare(open_source(source), tokenizer, tmp_path / "out", shard_tokens=200)
    train = open_shards(tmp_path / "out").train
    assert len(train.shards) > 3
    objective = build(seq_len=64)
    batches = list(objective.evaluation_batches(train, 4))
    assert sum(int(batch.weights.sum()) for batch in batches) == train.tokens
    told = {
        tuple(train.read(*bounds).tolist())
        for bounds in np.lib.stride_tricks.sliding_window_view(train.bounds, 2)
    }
    whole = {
        tuple(batch.targets[row][batch.documents[row] == number].tolist())
        for batch in batches
        for row in range(4)
        for number in range(64)
    }
    borders = np.cumsum(train.shard_tokens)[: -2 if train.shard_tokens[-1] <= 64 else -1]
    assert len(told - whole) == len(set(borders.tolist()) - set(train.bounds.tolist())) > 0


def test_a_run_trains_on_packed_rows(train_tiny, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    lines = (json.dumps({"text": "ab" * (1 + number % 40) + str(number)}) + "\n" for number in range(200))
    source.write_text("".join(lines), encoding="utf-8")
    result = train_tiny(
        f"data.path={source}", "data.objective.packing=best_fit", f"run.dir={tmp_path / 'run'}"
    )
    assert result.end.step == 8
    lines = (result.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert len(losses) >= 8
    assert losses[-1] < losses[0]
