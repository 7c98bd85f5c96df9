"""What each objective does with a window; what all of them promise is in tests/contracts/test_objectives.py."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pellucid.config import from_tree
from pellucid.data.batch import Batch, gather
from pellucid.data.config import DataConfig
from pellucid.data.evaluation import evaluation_batches
from pellucid.data.objectives import (
    Causal,
    CausalConfig,
    PairedConfig,
    PrefixConfig,
    SpanCorruptionConfig,
    sentinel_names,
)
from pellucid.data.objectives.prefix import Cut
from pellucid.data.objectives.span_corruption import corrupt, noise, segments
from pellucid.data.order import Window
from pellucid.data.prepare import prepare
from pellucid.data.shards import Split, open_shards
from pellucid.data.sources import open_source
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.seeding import derive
from pellucid.tokenizers import ByteTokenizer

END, START = 256, 300
TEXT = Split("train", (np.arange(40, dtype=np.uint16),))
FIRST = Window(0, 0, 0, 3)


def build(config, *, seq_len: int = 16, is_encoder_decoder: bool = True, tokenizer=None, seed: int = 0):
    return config.build(
        tokenizer=tokenizer or ByteTokenizer(sentinel_names(20)),
        is_encoder_decoder=is_encoder_decoder,
        seq_len=seq_len,
        start_id=START,
        seed=seed,
    )


# Causal


def equal(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(Batch)
        if field.name != "origin"
    ) and np.array_equal(one.origin.windows, other.origin.windows)


def test_causal_windows_are_those_of_gather_and_of_the_reading_order() -> None:
    objective = build(CausalConfig(), seq_len=8, is_encoder_decoder=False)
    windows = objective.order(TEXT, seed=1).step(2, 3)
    assert equal(objective.batch(TEXT, windows), gather(TEXT, windows, 8))
    for max_tokens in (None, 11):
        pairs = zip(
            objective.evaluation_batches(TEXT, 2, max_tokens),
            evaluation_batches(TEXT, 8, 2, max_tokens),
            strict=True,
        )
        assert all(equal(found, wanted) for found, wanted in pairs)


def test_causal_is_the_default_and_leaves_out_what_it_does_not_use() -> None:
    assert DataConfig().objective == CausalConfig()
    batch = Causal(8).batch(TEXT, [FIRST])
    left_out = ("positions", "documents", "prefix_lengths", "encoder_inputs", "encoder_documents")
    assert all(getattr(batch, name) is None for name in left_out)


# Prefix


def test_a_prefix_is_read_by_the_encoder_and_its_continuation_learned() -> None:
    objective = build(PrefixConfig(min_fraction=0.5, max_fraction=0.75), seq_len=8)
    assert (objective.encoder_len, objective.decoder_len) == (6, 4)
    batch = objective.batch(TEXT, [Window(number, 0, 0, 3) for number in range(60)])
    for row in range(60):
        length = int((batch.encoder_documents[row] == 0).sum())
        assert 4 <= length <= 6
        assert batch.encoder_inputs[row].tolist() == [*range(3, 3 + length), *[0] * (6 - length)]
        rest = list(range(3 + length, 11))
        padding = [0] * (4 - len(rest))
        assert batch.targets[row].tolist() == rest + padding
        assert batch.inputs[row].tolist() == [START, *rest[:-1], *padding]
        assert batch.weights[row].tolist() == [1.0] * len(rest) + padding
    lengths = (batch.encoder_documents == 0).sum(axis=1).tolist()
    assert set(lengths) == {4, 5, 6}


def test_a_decoder_is_shown_its_prefix_and_learns_from_the_first_id_after_it() -> None:
    objective = build(PrefixConfig(min_fraction=0.5, max_fraction=0.5), seq_len=8, is_encoder_decoder=False)
    batch = objective.batch(TEXT, [FIRST])
    assert batch.prefix_lengths.tolist() == [4]
    assert batch.inputs.tolist() == [[3, 4, 5, 6, 7, 8, 9, 10]]  # 3 4 5 6 is the prefix
    assert batch.targets[batch.weights > 0].tolist() == [7, 8, 9, 10, 11]


def test_places_are_uniform_within_the_fractions() -> None:
    counts = Counter(Cut(0.2, 0.6).place(10, derive(0, "test", number)) for number in range(5000))
    assert sorted(counts) == [2, 3, 4, 5, 6]
    assert all(abs(count - 1000) < 120 for count in counts.values())  # more than four standard deviations


@pytest.mark.parametrize(("fractions", "wanted"), [((0, 0), (1, 1)), ((1, 1), (9, 9)), ((0, 1), (1, 9))])
def test_something_is_always_given_and_something_learned(fractions, wanted) -> None:
    assert Cut(*fractions).between(10) == wanted
    assert Cut(*fractions).between(2) == (1, 1)


def test_fractions_in_the_wrong_order_and_windows_that_cannot_be_cut() -> None:
    with pytest.raises(ConfigError, match=r"min_fraction \(0\.8\) is more than max_fraction \(0\.75\)"):
        from_tree(PrefixConfig, {"min_fraction": 0.8})
    for is_encoder_decoder in (True, False):
        with pytest.raises(ConfigError, match=r"train\.seq_len .*: .* 1 cannot be cut; wanted at least 2"):
            build(PrefixConfig(), seq_len=1, is_encoder_decoder=is_encoder_decoder)


# Span corruption


def test_spans_become_sentinels_and_the_target_says_what_they_were() -> None:
    source, target = corrupt(
        np.arange(7, dtype=np.uint16),
        np.array([100, 101, 102, 103]),
        kept=np.array([2, 2]),
        cut=np.array([2, 1]),
    )
    assert source.tolist() == [0, 1, 100, 4, 5, 101]
    assert target.tolist() == [100, 2, 3, 101, 6, 102]


def t5_noise_mask(length: int, density: float, mean: float, rng: np.random.Generator) -> tuple[bool, ...]:
    """`random_spans_noise_mask` of google-research/text-to-text-transfer-transformer, in numpy."""
    count = min(max(round(length * density), 1), length - 1)
    spans = max(round(count / mean), 1)

    def segmentation(items: int, segments: int) -> np.ndarray:
        first = rng.permutation((np.arange(items - 1) < segments - 1).astype(int))
        return np.bincount(np.cumsum(np.concatenate([[0], first])), minlength=segments)

    cut, kept = segmentation(count, spans), segmentation(length - count, spans)
    starts = np.cumsum(np.reshape(np.stack([kept, cut], axis=1), [spans * 2]))[:-1]
    indicator = np.zeros(length, dtype=int)
    indicator[starts] = 1
    return tuple((np.cumsum(indicator) % 2 == 1).tolist())


def test_masks_are_drawn_as_t5_draws_them() -> None:
    """9 ids of which 5 are cut in 2 spans: 4 · 3 masks, equally likely."""
    rng, draws = np.random.default_rng(0), 3000
    theirs = Counter(t5_noise_mask(9, 0.5, 2.0, rng) for _ in range(draws))
    ours: Counter[tuple[bool, ...]] = Counter()
    count, spans = noise(9, 0.5, 2.0)
    for number in range(draws):
        lengths = np.stack(
            [
                segments(9 - count, spans, derive(number, "kept")),
                segments(count, spans, derive(number, "cut")),
            ],
            axis=1,
        )
        ours[tuple(np.repeat([False, True] * spans, lengths.reshape(-1)).tolist())] += 1
    assert (count, spans) == (4, 2)
    assert set(ours) == set(theirs)
    assert len(ours) == 4 * 3
    assert all(abs(times - draws / 12) < 75 for times in ours.values())  # nearly five standard deviations


def test_kept_and_cut_spans_are_both_drawn_for_every_window() -> None:
    objective = build(SpanCorruptionConfig(noise_density=0.4), seq_len=16)
    batch = objective.batch(TEXT, [Window(number, 0, 0, 3) for number in range(40)])
    kept, cut = set(), set()
    for source, target in zip(batch.encoder_inputs, batch.targets, strict=True):
        kept.add(tuple(np.flatnonzero(source > 256).tolist()))
        cut.add(tuple(np.flatnonzero(target > 256).tolist()))
    assert len(kept) > 5
    assert len(cut) == 5  # 6 ids in 2 spans
    pairs = {
        (tuple(s > 256), tuple(t > 256)) for s, t in zip(batch.encoder_inputs, batch.targets, strict=True)
    }
    assert len(pairs) > max(len(kept), len(cut))  # one does not follow from the other


def test_lengths_are_those_of_the_paper() -> None:
    """15 % of 512 ids in spans of 3: T5's own example gives 114 target ids for windows of 568."""
    assert noise(512, 0.15, 3.0) == (77, 26)
    cut, spans = noise(568, 0.15, 3.0)
    assert (568 - cut + spans + 1, cut + spans + 1) == (512, 114)  # t5 adds an end of text to both
    objective = build(SpanCorruptionConfig(), seq_len=64)
    assert (objective.encoder_len, objective.decoder_len) == (64 - 10 + 3, 10 + 3 + 2)


def test_a_target_is_over_after_its_last_sentinel_where_the_tokenizer_has_an_end() -> None:
    endless = ByteTokenizer(sentinel_names(20))
    endless.end_of_text_id = None
    last = endless.special_tokens["<extra_id_1>"]  # 16 ids have one span
    with_end, without = (
        build(SpanCorruptionConfig(), seq_len=16, tokenizer=tokenizer).batch(TEXT, [FIRST])
        for tokenizer in (None, endless)
    )
    assert with_end.targets[0, -2:].tolist() == [last, END]
    assert with_end.targets[0, :-1].tolist() == without.targets[0].tolist()
    assert END not in with_end.inputs
    assert with_end.encoder_inputs.tolist() == without.encoder_inputs.tolist()
    short = Split("val", (np.arange(16 + 5, dtype=np.uint16),))
    (batch,) = build(SpanCorruptionConfig(), seq_len=16).evaluation_batches(short, 2)
    for targets, weights in zip(batch.targets, batch.weights, strict=True):
        assert targets[weights > 0][-2:].tolist() == [last, END]


def test_a_training_source_has_no_padding_so_that_attention_needs_no_mask() -> None:
    batch = build(SpanCorruptionConfig(), seq_len=16).batch(TEXT, [FIRST])
    assert batch.encoder_documents is None
    assert batch.weights.all()
    (last,) = build(SpanCorruptionConfig(), seq_len=16).evaluation_batches(TEXT, 3)
    assert last.encoder_documents is not None
    assert (last.encoder_documents[2] == -1).any()


def test_missing_sentinels_are_counted_and_named() -> None:
    config = SpanCorruptionConfig()
    assert config.sentinels(512) == 27
    message = (
        r"data\.tokenizer\.special_tokens: .* needs 27 sentinels for windows of 512 ids, <extra_id_0> "
        r"to <extra_id_26>, and the tokenizer lacks 7 of them; give data\.tokenizer\.special_tokens="
        r"'\[\"<extra_id_0>\", \"<extra_id_1>\", …, \"<extra_id_26>\"\]' .*sentinel_names\(27\)"
    )
    with pytest.raises(ConfigError, match=message):
        build(config, seq_len=512)
    with pytest.raises(ConfigError, match="lacks 27 of them"):
        build(config, seq_len=512, tokenizer=ByteTokenizer())
    build(config, seq_len=512, tokenizer=ByteTokenizer(["<pad>", *reversed(sentinel_names(27))]))


def test_sentinels_are_used_in_the_order_of_their_names() -> None:
    tokenizer = ByteTokenizer(["<pad>", *reversed(sentinel_names(20))])
    batch = build(SpanCorruptionConfig(noise_density=0.5), seq_len=16, tokenizer=tokenizer).batch(
        TEXT, [FIRST]
    )
    marks = [tokenizer.special_tokens[name] for name in sentinel_names(4)]
    assert [token for token in batch.encoder_inputs[0].tolist() if token > 256] == marks[:3]
    assert [token for token in batch.targets[0].tolist() if token > 256] == marks


def test_a_target_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.seq_len \(3; .* lower data\.objective\.noise_density"):
        build(SpanCorruptionConfig(), seq_len=3)  # <0> x <1> end
    with pytest.raises(ConfigError, match=r"mean_span_length \(1\.0\)"):
        build(SpanCorruptionConfig(noise_density=0.6, mean_span_length=1), seq_len=16)
    build(SpanCorruptionConfig(), seq_len=4)


# Paired


@pytest.fixture
def pairs(tmp_path: Path, pair_lines: Callable[..., Path]) -> Split:
    path = pair_lines([(f"source {n}", f"target {n * n}") for n in range(40)])
    prepare(open_source(path, pair_fields=("source", "target")), ByteTokenizer(), tmp_path / "out")
    return open_shards(tmp_path / "out").train


def test_a_pair_is_a_source_without_and_a_target_with_an_end(pairs: Split) -> None:
    objective = build(PairedConfig(), seq_len=14)
    order = objective.order(pairs, seed=0)
    window = order.locate(5)
    batch = objective.batch(pairs, [window])
    source = bytes(batch.encoder_inputs[0][batch.encoder_documents[0] == 0].astype(np.uint8)).decode()
    target = batch.targets[0][batch.weights[0] > 0].tolist()
    number = int(source.removeprefix("source "))
    assert bytes(target[:-1]).decode() == f"target {number * number}"
    assert target[-1] == END
    assert batch.inputs[0, : len(target)].tolist() == [START, *target[:-1]]
    assert batch.inputs.shape == batch.encoder_inputs.shape == (1, 14)
    assert batch.origin.starts.tolist() == [window.start]


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own(pairs: Split) -> None:
    order = build(PairedConfig()).order(pairs, seed=0)
    count = len(pairs.bounds) // 2
    orders = [[order.locate(n).start for n in range(e * count, (e + 1) * count)] for e in range(2)]
    assert [sorted(one) for one in orders] == [list(range(count))] * 2
    assert orders[0] != orders[1]


def test_long_pairs_are_counted_and_refused_never_cut(pairs: Split) -> None:
    wanted = (
        r"^training split: (\d+) of (\d+) pairs do not fit train\.seq_len 9: the longest source has 9 ids, "
        r"the longest target 12 with its end; raise train\.seq_len \(and model\.max_seq_len\) to 12, or"
    )
    objective = build(PairedConfig(), seq_len=9)
    for refuse in (lambda: objective.order(pairs, seed=0), lambda: objective.evaluation_batches(pairs, 1)):
        with pytest.raises(DataError, match=wanted):
            refuse()
    long_targets = np.diff(pairs.bounds)[1::2] > 9
    with pytest.raises(DataError, match=f"{long_targets.sum()} of {len(long_targets)} pairs"):
        objective.extents(pairs)
    assert build(PairedConfig(), seq_len=12).extents(pairs) == (len(long_targets),)


def test_single_texts_and_single_pairs_are_refused(pairs: Split) -> None:
    with pytest.raises(
        DataError, match=r"^training split: was prepared as single texts, and data\.objective\.kind 'paired'"
    ):
        build(PairedConfig()).order(TEXT, seed=0)
    one = Split("train", (pairs.read(0, int(pairs.bounds[2])),), (pairs.starts[0][:2],), is_paired=True)
    with pytest.raises(DataError, match=r"^training split: 1 pair\(s\), and training needs at least 2"):
        build(PairedConfig()).order(one, seed=0)
    assert len(list(build(PairedConfig()).evaluation_batches(one, 1))) == 1


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.end_of_text_id = None
    with pytest.raises(ConfigError, match=r"data\.tokenizer\.kind 'byte' has no end-of-text token"):
        build(PairedConfig(), tokenizer=tokenizer)


def test_running_text_can_be_cut_out_of_paired_data(pairs: Split) -> None:
    """Sources and targets one after the other are a text like any other."""
    assert Causal(8).order(pairs, seed=0).windows_per_epoch == pairs.tokens // 8


# The config


def test_the_data_table_knows_the_fields_of_pairs() -> None:
    tree = {"objective": {"kind": "paired", "source_field": "question"}}
    assert from_tree(DataConfig, tree).reading.pair_fields == ("question", "target")
    assert DataConfig().reading.pair_fields is None
    with pytest.raises(
        ConfigError, match=r"objective\.kind: there is no kind 'spam_corruption'; did you mean"
    ):
        from_tree(DataConfig, {"objective": {"kind": "spam_corruption"}})
    for key, value in {"noise_density": 0, "mean_span_length": 0.5}.items():
        with pytest.raises(ConfigError, match=rf"objective\.{key}: must be "):
            from_tree(DataConfig, {"objective": {"kind": "span_corruption", key: value}})
