"""Several prepared directories in exact proportions."""

from pathlib import Path

import numpy as np
import pytest

from pellucid import tokenizers
from pellucid.data.loader import TrainingLoader
from pellucid.data.mixture import Mixture, MixtureOrder
from pellucid.data.objectives import Causal
from pellucid.data.objectives.causal import PackedCausal
from pellucid.data.order import TrainingOrder
from pellucid.data.prepare import prepare
from pellucid.data.shards import ShardSet, open_shards
from pellucid.data.sources import open_source
from pellucid.errors import ConfigError, DataError

SEQ_LEN = 8


def orders(*tokens: int, seed: int = 0) -> list[TrainingOrder]:
    return [TrainingOrder([count], SEQ_LEN, seed=seed) for count in tokens]


def mixed(weights: list[float], *tokens: int) -> MixtureOrder:
    return MixtureOrder(orders(*tokens), weights, first_shards=range(len(tokens)))


@pytest.mark.parametrize("weights", [[0.7, 0.3], [1, 1, 1], [5, 1], [0.125, 0.5, 0.375], [1e-3, 0.999]])
def test_after_any_number_of_windows_no_member_is_a_window_away_from_its_share(weights: list[float]) -> None:
    order = mixed(weights, *[1000] * len(weights))
    members = np.array([order.locate(number).shard for number in range(3000)])
    shares = np.array(weights) / sum(weights)
    for member, share in enumerate(shares):
        taken = np.cumsum(members == member)
        assert np.abs(taken - share * np.arange(1, 3001)).max() < 1


def test_proportions_are_exact_at_the_end_of_a_period() -> None:
    order = mixed([0.7, 0.3], 1000, 1000)
    members = [order.locate(number).shard for number in range(100)]
    for start in range(0, 100, 10):
        assert members[start : start + 10].count(1) == 3


def test_each_member_keeps_its_own_order_and_begins_its_next_epoch_by_itself() -> None:
    order, own = mixed([3, 1], 400, 40), orders(400, 40)
    met = {0: 0, 1: 0}
    for number in range(200):
        window = order.locate(number)
        expected = own[window.shard].locate(met[window.shard])
        assert (window.epoch, window.start) == (expected.epoch, expected.start)
        assert window.number == number
        met[window.shard] += 1
    assert met == {0: 150, 1: 50}
    assert {order.locate(number).epoch for number in range(200)} > {0, 1, 2}  # the small one goes round


def test_ranks_share_a_step_and_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    order = mixed([2, 1], 500, 300)
    whole = order.step(7, 12)
    shared = sorted(
        order.step(7, 12, rank=0, world=3)
        + order.step(7, 12, rank=1, world=3)
        + order.step(7, 12, rank=2, world=3)
    )
    assert shared == sorted(whole)
    assert order.step(7, 12) == mixed([2, 1], 500, 300).step(7, 12)


def test_weights_that_are_exact_only_after_very_many_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.mixture: the weights 0\.123456789, 1 are exact only after"):
        mixed([0.123456789, 1], 100, 100)


@pytest.fixture
def members(tmp_path: Path) -> list[ShardSet]:
    return [made(tmp_path / name, letter * 600) for name, letter in (("a", "a"), ("b", "b"))]


def made(directory: Path, text: str, tokenizer: str = "byte") -> ShardSet:
    file = directory.with_suffix(".txt")
    file.write_text(text)
    prepare(open_source(file), tokenizers.build(tokenizer), directory, shard_tokens=200)
    return open_shards(directory)


def test_batches_hold_the_members_texts_in_proportion(members: list[ShardSet]) -> None:
    mixture, objective = Mixture(members, [3, 1]), Causal(SEQ_LEN)
    order = mixture.order([objective.order(m.train, seed=0) for m in members], None)
    with TrainingLoader(mixture.train, order, objective=objective, batch_windows=8, micro_batch=8) as loader:
        for step in range(20):
            (batch,) = loader.step(step)
            assert (batch.inputs == ord("b")).all(dim=1).sum() == 2
            assert (batch.inputs == ord("a")).all(dim=1).sum() == 6
    assert mixture.val.tokens == sum(member.val.tokens for member in members)
    assert mixture.val.text_bytes == 120


@pytest.mark.parametrize("is_running_text_first", [True, False])
@pytest.mark.parametrize("seq_len", [7, 90])
def test_packed_rows_of_a_mixture_are_the_members_rows(
    tmp_path: Path, is_running_text_first: bool, seq_len: int
) -> None:
    """One running text, whose documents have no end, and documents that have; the last shards are short."""
    text = made(tmp_path / "text", "to be or not to be " * 25)
    file = tmp_path / "stories.jsonl"
    file.write_text("".join(f'{{"text": "{"once upon a time " * (n % 5)}{n}"}}\n' for n in range(60)))
    prepare(open_source(file), tokenizers.build("byte"), tmp_path / "stories", shard_tokens=250)
    members = [text, open_shards(tmp_path / "stories")]
    assert 0 < members[0].train.shard_tokens[-1] < 90
    mixture = Mixture(members if is_running_text_first else members[::-1], [2, 1])
    objective = PackedCausal(seq_len, end_of_text_id=256)
    order = mixture.order([objective.order(m.train, seed=0) for m in mixture.members], None)

    with TrainingLoader(mixture.train, order, objective=objective, batch_windows=3, micro_batch=3) as loader:
        (batch,) = loader.step(0)
        assert (batch.weights.sum(dim=1) > 0).all()

    first_shards = [0, len(objective.extents(mixture.members[0].train))]
    windows = [order.locate(number) for number in range(3 * order.windows_per_epoch)]
    for member, first in zip(mixture.members, first_shards, strict=True):
        extents = objective.extents(member.train)
        own = [w for w in windows if w.epoch == 0 and first <= w.shard < first + len(extents)]
        assert len(own) == sum(extents)
        mixed = objective.batch(mixture.train, own)
        alone = objective.batch(member.train, [w._replace(shard=w.shard - first) for w in own])
        for field in ("inputs", "targets", "weights", "positions", "documents"):
            assert (getattr(mixed, field) == getattr(alone, field)).all()
        targets = np.sort(mixed.targets[mixed.weights > 0])
        ids = np.concatenate(member.train.shards)
        assert (targets == np.sort(ids[1:] if member is text else ids)).all()

    scored = [b.targets[b.weights > 0] for b in objective.evaluation_batches(mixture.val, 4)]
    everything = np.concatenate([np.concatenate(m.val.shards)[int(m is text) :] for m in mixture.members])
    assert (np.sort(np.concatenate(scored)) == np.sort(everything)).all()


def test_a_fingerprint_covers_members_and_weights(members: list[ShardSet]) -> None:
    one = Mixture(members, [3, 1]).fingerprint
    assert one == Mixture(members, [3, 1]).fingerprint
    assert len({one, Mixture(members, [1, 1]).fingerprint, Mixture(members[::-1], [3, 1]).fingerprint}) == 3


def test_members_made_with_other_tokenizers_are_refused(members: list[ShardSet], tmp_path: Path) -> None:
    other = made(tmp_path / "c", "some other words " * 50, "gpt2")
    with pytest.raises(
        DataError, match=r"c: was prepared with tokenizer gpt2 .* and .*a with byte .*prepare them alike"
    ):
        Mixture([members[0], other], [1, 1])


def test_pairs_are_refused(members: list[ShardSet], tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"source": "x", "target": "y"}\n{"source": "z", "target": "w"}\n')
    prepare(
        open_source(file, pair_fields=("source", "target")),
        tokenizers.build("byte"),
        tmp_path / "p",
        val_fraction=0.5,
    )
    with pytest.raises(DataError, match="holds pairs"):
        Mixture([members[0], open_shards(tmp_path / "p")], [1, 1])
