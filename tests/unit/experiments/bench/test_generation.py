"""What the cache saves: both ways write the same text, and what is counted is what was timed."""

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.experiments.bench import generation
from pellucid.experiments.bench.generation import (
    find_crossover,
    measure_cache,
    measured_tokens,
    random_model,
    room_of,
)
from pellucid.model import DecoderConfig, EncoderDecoderConfig

SIZES = {"vocab_size": 61, "d_model": 16, "num_heads": 2, "max_seq_len": 64}
MODELS = {
    "decoder": DecoderConfig(**SIZES, num_layers=2),
    "prefix": DecoderConfig(**SIZES, num_layers=2, prompt_mask="prefix"),
    "encoder-decoder": EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_both_ways_have_the_same_logits(name):
    speed = measure_cache(MODELS[name].build(), "fp32", 3, [4, 40], prompt_tokens=5)
    assert 0 <= speed.largest_difference < 1e-5
    assert len(speed.cached_s) == len(speed.recomputed_s) == 40


@pytest.mark.parametrize("form", ["bf16", "q8"])
def test_narrow_weights_have_nearly_the_same_logits(form):
    config = DecoderConfig(vocab_size=61, d_model=32, num_heads=2, num_layers=2, max_seq_len=64)
    speed = measure_cache(config.build(), form, 1, [40], prompt_tokens=5)
    assert 0 < speed.largest_difference < 0.05


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_has_the_planned_bytes(name):
    speed = measure_cache(MODELS[name].build(), "bf16", 2, [8, 3], prompt_tokens=5)
    assert [row.new_tokens for row in speed.lengths] == [3, 8]
    assert [row.cache_bytes for row in speed.lengths] == [row.planned_cache_bytes for row in speed.lengths]
    # 2 (keys, values) · 2 layers · 2 rows · 16 features · positions · 2 bytes; an answer begins after one id of its
    # own, and its source is kept beside it
    positions = [1 + 5 + 3, 1 + 5 + 8] if name == "encoder-decoder" else [5 + 3, 5 + 8]
    assert [row.cache_bytes for row in speed.lengths] == [2 * 2 * 2 * 16 * n * 2 for n in positions]


def test_a_length_is_the_sum_of_its_tokens_and_counts_every_row(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(generation, "_now", lambda _: float(next(clock)))  # every look is a second later
    speed = measure_cache(MODELS["decoder"].build(), "fp32", 4, [2, 40], prompt_tokens=5)
    assert speed.cached_s == speed.recomputed_s == [1.0] * 40
    short, long = speed.lengths
    assert (short.cached_s, long.cached_s, long.recomputed_s) == (2.0, 40.0, 40.0)
    assert (long.speedup, long.cached_tokens_per_s, long.recomputed_tokens_per_s) == (1.0, 4.0, 4.0)


def test_between_measured_tokens_the_time_is_on_a_straight_line():
    speed = measure_cache(MODELS["decoder"].build(), "fp32", 1, [50], prompt_tokens=5)
    assert speed.measured == [*range(1, 17), 32, 50]
    seconds = speed.recomputed_s
    assert seconds[40] == pytest.approx(seconds[31] + (41 - 32) / (50 - 32) * (seconds[49] - seconds[31]))


def test_reading_anew_is_measured_densely_first_and_at_the_end():
    assert measured_tokens(3) == [1, 2, 3]
    assert measured_tokens(100) == [*range(1, 17), 32, 64, 96, 100]


def test_a_time_is_the_median_of_the_rounds(monkeypatch):
    seconds = iter([9.0, 1.0, 5.0, 2.0])  # to warm up, then three rounds

    def write(model, prompt, count, on_progress=None):
        each = np.full(count, next(seconds))
        return generation._Times(each, 10 * each, 0.25)

    monkeypatch.setattr(generation, "_write", write)
    speed = measure_cache(MODELS["decoder"].build(), "fp32", 1, [2], prompt_tokens=5, rounds=3)
    assert (speed.cached_s, speed.recomputed_s) == ([2.0, 2.0], [20.0, 20.0])
    assert speed.largest_difference == 0.25


@pytest.mark.parametrize(
    ("cached", "recomputed", "wanted"),
    [
        ([1, 1, 1], [2, 2, 2], 1),
        ([5, 1, 1, 1], [3, 2, 3, 3], 3),  # 5 6 7 8 in all against 3 5 8 11
        ([2, 2], [1, 1], None),
        ([1, 9, 1, 1], [2, 2, 2, 9], 4),  # ahead at once, then behind for a while
        ([1], [1], None),
    ],
)
def test_the_crossover_is_where_the_cache_stays_ahead(cached, recomputed, wanted):
    assert find_crossover(np.array(cached, float), np.array(recomputed, float)) == wanted


def test_weights_are_converted_in_a_copy():
    model = MODELS["decoder"].build()
    measure_cache(model, "bf16", 1, [2], prompt_tokens=3)
    assert model.embedding.table.dtype == torch.float32


@pytest.mark.parametrize(
    ("lengths", "prompt_tokens", "said"),
    [
        ([0, 4], 5, "room for 1 to 59"),
        ([60], 5, "room for 1 to 59"),
        ([], 5, "room for 1 to 59"),
        ([1], 64, "leaves no room in the model's 64 positions"),
    ],
)
def test_what_does_not_fit_is_refused(lengths, prompt_tokens, said):
    with pytest.raises(ConfigError, match=said):
        measure_cache(MODELS["decoder"].build(), "fp32", 1, lengths, prompt_tokens=prompt_tokens)


def test_the_room_behind_a_prompt_can_be_filled_and_no_more():
    for config in MODELS.values():
        model = config.build()
        room = room_of(model, 5)
        assert measure_cache(model, "fp32", 1, [room], prompt_tokens=5).lengths[0].new_tokens == room
        with pytest.raises(ConfigError):
            measure_cache(model, "fp32", 1, [room + 1], prompt_tokens=5)


def test_a_presets_context_is_made_long_enough_and_its_ids_are_its_tokenizers(tiny_config):
    model = random_model(tiny_config(), 100)
    assert (model.max_seq_len, model.vocab_size) == (100, 257)
    assert random_model(tiny_config(), 5).max_seq_len == 16


def test_progress_is_told_of_every_token():
    told = []
    model = MODELS["decoder"].build()
    measure_cache(model, "fp32", 1, [3], prompt_tokens=2, on_progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]
