"""What every objective promises, for every family of models that learns it. A new member is tested too."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pellucid.config import from_tree, members, to_tree
from pellucid.data.batch import Batch
from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.data.objectives import Objective, ObjectiveConfig, require_fit, sentinel_names
from pellucid.data.order import TrainingOrder
from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError
from pellucid.model import ModelConfig
from pellucid.tokenizers import ByteTokenizer

OBJECTIVES = members(ObjectiveConfig)
FAMILIES = tuple(members(ModelConfig))
CASES = [(kind, family) for kind, one in OBJECTIVES.items() for family in FAMILIES if family in one.trains]
MISFITS = [
    (kind, family) for kind, one in OBJECTIVES.items() for family in FAMILIES if family not in one.trains
]
SEQ_LEN, START = 64, 256
TOKENIZER = ByteTokenizer(sentinel_names(40))
SENTINELS = [TOKENIZER.special_tokens[name] for name in sentinel_names(40)]


def running(name: str) -> Split:
    """Shards of bytes: one shorter than a window, and one whose last window has a single id left."""
    rng = np.random.default_rng(len(name))
    lengths = (400, 7, 2 * SEQ_LEN + 1, 250)
    return Split(name, tuple(rng.integers(0, 256, n).astype(np.uint16) for n in lengths))


def paired(name: str) -> Split:
    """Pairs of 1 to SEQ_LEN - 1 bytes a text, cut into shards inside documents."""
    rng = np.random.default_rng(len(name))
    texts = [[*rng.integers(0, 256, n), 256] for n in rng.integers(1, SEQ_LEN, 2 * 31)]
    flat = np.concatenate(texts).astype(np.uint16)
    starts = np.cumsum([0, *map(len, texts)])[:-1]
    cuts = np.arange(0, len(flat), 25)
    return Split(
        name,
        tuple(flat[cut : cut + 25] for cut in cuts),
        tuple(
            (starts[(starts >= cut) & (starts < cut + 25)] - cut).astype(np.uint64) for cut in cuts.tolist()
        ),
        is_paired=True,
    )


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


Build = Callable[..., Objective]


@pytest.fixture
def build(case: tuple[str, str]) -> Build:
    kind, family = case

    def make(seed: int = 0) -> Objective:
        return OBJECTIVES[kind]().build(
            tokenizer=TOKENIZER,
            is_encoder_decoder=family == "encoder_decoder",
            seq_len=SEQ_LEN,
            start_id=START,
            seed=seed,
        )

    return make


@pytest.fixture
def split(case: tuple[str, str]) -> Split:
    return (paired if case[0] == "paired" else running)("train")


def arrays(batch: Batch) -> Iterator[tuple[str, np.ndarray]]:
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if field.name != "origin" and value is not None:
            yield field.name, value


def rows(batches: list[Batch]) -> list[dict[str, list]]:
    """What each window became, whatever batch it stood in."""
    return [
        {"window": int(window), **{name: array[row].tolist() for name, array in arrays(batch)}}
        for batch in batches
        for row, window in enumerate(batch.origin.windows)
    ]


def epoch(objective: Objective, split: Split, number: int = 0) -> tuple[TrainingOrder, list[Batch]]:
    """A whole epoch, five windows a batch."""
    order = objective.order(split, seed=3)
    first = number * order.windows_per_epoch
    windows = [order.locate(first + index) for index in range(order.windows_per_epoch)]
    return order, [objective.batch(split, windows[at : at + 5]) for at in range(0, len(windows), 5)]


def original(row: dict[str, list], family: str) -> list[int]:
    """The window that a row was made from, put together again from what the model is given and what it learns."""
    learned = [target for target, weight in zip(row["targets"], row["weights"], strict=True) if weight]
    if family == "decoder":
        return [row["inputs"][0], *row["targets"]]
    documents = row.get("encoder_documents", [0] * len(row["encoder_inputs"]))
    source = [token for token, document in zip(row["encoder_inputs"], documents, strict=True) if not document]
    if not set(source) & set(SENTINELS):
        return source + learned
    spans: dict[int, list[int]] = {}
    for token in learned:
        if token in SENTINELS:
            spans[token] = []
        else:
            next(reversed(spans.values())).append(token)
    return [token for mark in source for token in spans.get(mark, [mark])]


def window_of(split: Split, row: dict[str, list], order: TrainingOrder, length: int) -> list[int]:
    window = order.locate(row["window"])
    shard = split.shards[window.shard].astype(int)
    return np.roll(shard, -window.start)[:length].tolist()


# Shapes


def test_every_batch_has_the_stated_shapes_and_types(build: Build, split: Split) -> None:
    objective = build()
    expected = {
        **dict.fromkeys(("inputs", "targets", "weights", "positions", "documents"), objective.decoder_len),
        **dict.fromkeys(("encoder_inputs", "encoder_documents"), objective.encoder_len),
    }
    batches = [*epoch(objective, split)[1], *epoch(objective, split, 1)[1]]
    present = {name for name, _ in arrays(batches[0])}
    for batch in batches:
        count = len(batch.origin.windows)
        assert {name for name, _ in arrays(batch)} == present  # a compiled model is not compiled again
        for name, array in arrays(batch):
            assert array.shape == ((count, expected[name]) if name in expected else (count,)), name
            assert array.dtype == (np.float32 if name == "weights" else np.int64), name
    assert objective.seq_len == SEQ_LEN
    assert objective.decoder_len <= SEQ_LEN
    assert (objective.encoder_len or 0) <= SEQ_LEN


def test_evaluation_batches_are_full_and_have_the_same_shapes(build: Build, split: Split) -> None:
    objective = build()
    trained = objective.batch(split, [objective.order(split, seed=0).locate(0)])
    batches = list(objective.evaluation_batches(split, 4))
    for batch in batches:
        assert len(batch.origin.windows) == 4
        for name in ("inputs", "targets", "weights", "encoder_inputs"):
            found, wanted = getattr(batch, name), getattr(trained, name)
            assert (found is None) == (wanted is None)
            assert found is None or found.shape[1:] == wanted.shape[1:]
    real = np.concatenate([batch.origin.windows for batch in batches])
    assert real.tolist() == [*range((real >= 0).sum()), *[-1] * (real < 0).sum()]
    for row in rows(batches):
        assert any(row["weights"]) == (row["window"] >= 0)


def test_the_tensors_are_what_its_models_take(build: Build, split: Split, case: tuple[str, str]) -> None:
    _, family = case
    objective = build()
    batch = TensorBatch.of(objective.batch(split, [objective.order(split, seed=0).locate(0)]))
    inputs = batch.model_inputs()
    assert inputs["input_ids"] is batch.inputs
    assert ("encoder_ids" in inputs) == (family == "encoder_decoder") == (objective.encoder_len is not None)
    if family == "decoder":
        assert set(inputs) <= {"input_ids", "positions", "documents", "prefix_lengths"}
    else:
        assert set(inputs) <= {"input_ids", "positions", "documents", "encoder_ids", "encoder_documents"}


# What is given and what is learned


def test_inputs_are_the_targets_one_place_later(build: Build, split: Split, case: tuple[str, str]) -> None:
    objective = build()
    for row in rows([*epoch(objective, split)[1], *objective.evaluation_batches(split, 3)]):
        learned = [place for place, weight in enumerate(row["weights"]) if weight]
        if not learned:
            continue
        assert learned == list(range(learned[0], learned[-1] + 1))  # without gaps
        shifted = zip(row["inputs"][1:], row["targets"][: learned[-1]], strict=False)
        assert all(given == target for given, target in shifted)
        if case[1] == "encoder_decoder":
            assert row["inputs"][0] == START
            assert learned[0] == 0


def test_weights_are_only_where_there_is_a_target(build: Build, split: Split) -> None:
    """Padding has no weight and a source's padding is hidden; the prefix that a decoder is shown has none."""
    objective = build()
    for row in rows([*epoch(objective, split)[1], *objective.evaluation_batches(split, 3)]):
        assert set(row["weights"]) <= {0.0, 1.0}
        if "prefix_lengths" in row and row["window"] >= 0:
            assert row["weights"].index(1.0) == row["prefix_lengths"] - 1
        for token, document in zip(
            row.get("encoder_inputs", []), row.get("encoder_documents", []), strict=False
        ):
            assert document in (0, -1)
            assert document == 0 or token == 0
        documents = row.get("encoder_documents", [])
        assert documents == sorted(documents, reverse=True)


def test_a_window_can_be_put_together_again(build: Build, split: Split, case: tuple[str, str]) -> None:
    """Nothing is lost, doubled or moved between what the model sees and what it learns."""
    kind, family = case
    order, batches = epoch(build(), split)
    for row in rows(batches):
        if kind == "paired":
            pair = order.locate(row["window"]).start
            begin, end = split.bounds[[2 * pair, 2 * pair + 2]].tolist()
            found = original(row, family)
            assert found == [token for token in split.read(begin, end).tolist() if token != 256] + [256]
        else:
            length = SEQ_LEN + 1 if family == "decoder" else SEQ_LEN
            assert original(row, family) == window_of(split, row, order, length)


def test_evaluation_reads_the_whole_split_once(build: Build, split: Split, case: tuple[str, str]) -> None:
    """Each text in its order; but a shard's last id, where it is left alone, has nothing to be told from."""
    kind, family = case
    batches = [row for row in rows(list(build().evaluation_batches(split, 3))) if row["window"] >= 0]
    if family == "decoder":
        read = [
            row["targets"][: row["weights"].count(1) + max(0, row.get("prefix_lengths", 1) - 1)]
            for row in batches
        ]
        wanted = [shard[1:] for shard in split.shards]
    elif kind == "paired":
        read = [[*original(row, family)[:-1], 256] for row in batches]
        wanted = [
            [token for token in split.read(*split.bounds[[pair, pair + 2]]).tolist() if token != 256] + [256]
            for pair in range(0, 62, 2)
        ]
    else:
        read = [original(row, family) for row in batches]
        wanted = [shard[:-1] if len(shard) % SEQ_LEN == 1 else shard for shard in split.shards]
    assert np.concatenate(read).tolist() == np.concatenate(wanted).tolist()


def test_max_tokens_is_exact_and_always_the_same_targets(build: Build, split: Split) -> None:
    def scored(max_tokens: int | None, batch_windows: int) -> list[int]:
        batches = list(build().evaluation_batches(split, batch_windows, max_tokens))
        return [token for batch in batches for token in batch.targets[batch.weights > 0].tolist()]

    whole = scored(None, 4)
    for count in (1, 5, 37, len(whole), len(whole) + 9):
        assert scored(count, 4) == scored(count, 1) == whole[:count]


# Draws


def test_a_row_depends_on_its_window_alone(build: Build, split: Split) -> None:
    """Not on the batch, the micro-batch, what was asked before, or the object that made it."""
    order, batches = epoch(build(), split, 1)
    together = rows(batches)
    objective = build()
    alone = [rows([objective.batch(split, [order.locate(row["window"])])])[0] for row in reversed(together)]
    assert alone[::-1] == together


def test_a_loader_gives_the_same_rows_from_any_step_and_for_any_micro_batch(
    build: Build, split: Split
) -> None:
    objective = build()
    order = objective.order(split, seed=3)
    options = {"objective": objective, "batch_windows": 6}
    with TrainingLoader(split, order, **options, micro_batch=6) as straight:
        steps = [straight.step(step)[0].inputs.tolist() for step in range(5)]
    with TrainingLoader(split, order, **options, micro_batch=4, read_ahead=0) as resumed:
        later = [np.concatenate([part.inputs.numpy() for part in resumed.step(step)]) for step in (3, 4)]
    assert [batch.tolist() for batch in later] == steps[3:]
    assert steps == [objective.batch(split, order.step(step, 6)).inputs.tolist() for step in range(5)]


def draws_of(made: list[dict[str, list]]) -> list[object]:
    """What was drawn for each row: where it was cut."""
    found: list[object] = []
    for row in made:
        marks = [place for place, token in enumerate(row.get("encoder_inputs", ())) if token in SENTINELS]
        length = sum(document == 0 for document in row.get("encoder_documents", ()))
        found.append((row.get("prefix_lengths"), marks, length))
    return found


def test_every_epoch_and_every_seed_draws_anew(build: Build, split: Split, case: tuple[str, str]) -> None:
    if case[0] in ("causal", "paired"):
        first, other = (rows(epoch(build(seed), split)[1]) for seed in (0, 1))
        assert first == other  # nothing is drawn
        return
    first, again, second, other = (
        draws_of(rows(epoch(build(seed), split, number)[1]))
        for seed, number in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert first != second
    assert first != other


def test_evaluation_is_the_same_for_every_seed_and_batch_size(build: Build, split: Split) -> None:
    def real(objective: Objective, batch_windows: int) -> list[dict[str, list]]:
        return [
            row
            for row in rows(list(objective.evaluation_batches(split, batch_windows)))
            if row["window"] >= 0
        ]

    assert real(build(0), 3) == real(build(1), 3) == real(build(0), 1) == real(build(0), 64)


def test_evaluation_draws_anew_for_every_window(build: Build, case: tuple[str, str]) -> None:
    """A text of equal windows: only a draw can tell them apart."""
    split = Split("val", (np.tile(np.arange(SEQ_LEN, dtype=np.uint16), 40),))
    if case[0] in ("prefix", "span_corruption"):
        places = draws_of(rows(list(build().evaluation_batches(split, 4))))
        assert len({str(place) for place in places}) > 10


# What does not go


@pytest.mark.parametrize(("kind", "family"), MISFITS)
def test_a_model_that_cannot_learn_it_is_refused_naming_both_fields(kind: str, family: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.objective\.kind '{kind}' .* model\.kind is '{family}'"):
        OBJECTIVES[kind]().build(
            tokenizer=TOKENIZER, is_encoder_decoder=family == "encoder_decoder", seq_len=SEQ_LEN, start_id=0
        )
    with pytest.raises(ValueError, match=rf"data\.objective\.kind '{kind}' .*") as refused:
        require_fit(OBJECTIVES[kind](), family)
    for other, one in OBJECTIVES.items():
        assert (other in str(refused.value).partition("objectives of")[2]) == (family in one.trains)


def test_a_model_that_can_learn_it_fits(case: tuple[str, str]) -> None:
    require_fit(OBJECTIVES[case[0]](), case[1])


def test_an_encoder_decoder_needs_a_first_id(case: tuple[str, str]) -> None:
    if case[1] == "encoder_decoder":
        with pytest.raises(
            ConfigError, match="start_id: the targets of an encoder-decoder begin after an id"
        ):
            OBJECTIVES[case[0]]().build(tokenizer=TOKENIZER, is_encoder_decoder=True, seq_len=SEQ_LEN)


def test_too_little_data_is_refused(build: Build, case: tuple[str, str]) -> None:
    shards = tuple(np.arange(n, dtype=np.uint16) for n in (SEQ_LEN, 5))
    with pytest.raises(DataError):
        build().order(Split("train", shards), seed=0)
    with pytest.raises(DataError):
        build().evaluation_batches(Split("val", (shards[1][:1],)), 1)


def test_sizes_below_one_are_refused(build: Build, split: Split) -> None:
    for sizes in ((0, 5), (1, 0)):
        with pytest.raises(ConfigError, match="of at least 1, not"):
            build().evaluation_batches(split, *sizes)


def test_the_order_fits_the_loader_and_ends_epochs_early(build: Build, split: Split) -> None:
    objective = build()
    whole = objective.order(split, seed=3, shuffle_shards=1)
    short = objective.order(split, seed=3, shuffle_shards=1, tokens_per_epoch=3 * SEQ_LEN + 1)
    assert short.windows_per_epoch == 3 < whole.windows_per_epoch
    assert whole.shard_tokens == objective.extents(split)
    with pytest.raises(ConfigError, match=rf"data\.tokens_per_epoch: {SEQ_LEN - 1} is less than a "):
        objective.order(split, seed=3, tokens_per_epoch=SEQ_LEN - 1)


def test_a_config_survives_the_round_trip_and_every_setting_is_described(case: tuple[str, str]) -> None:
    cls = OBJECTIVES[case[0]]
    assert from_tree(cls, to_tree(cls())) == cls()
    assert [name for name, field in cls.model_fields.items() if not field.description] == ["kind"]
