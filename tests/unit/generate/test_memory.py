"""Long texts take no more memory than short ones, and the cache is as large as `pellucid plan` says."""

from __future__ import annotations

import gc
from typing import Any

import psutil
import pytest
import torch

from pellucid.config import from_tree
from pellucid.generate import BeamConfig, NgramLookup, Options, SamplingConfig, generate_texts, stream_text
from pellucid.generate.engine import Writing
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.stats import count_cache_bytes, on_meta
from pellucid.runtime.device import choose_device
from pellucid.tokenizers import ByteTokenizer
from pellucid.train.cost import estimate_cost

CONTEXT = 48
CONFIGS = {
    "decoder": from_tree(
        DecoderConfig,
        {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "max_seq_len": CONTEXT},
    ),
    "encoder_decoder": from_tree(
        EncoderDecoderConfig,
        {
            "vocab_size": 257,
            "d_model": 16,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "num_heads": 2,
            "num_kv_heads": 1,
            "max_seq_len": CONTEXT,
            "start_id": 0,
        },
    ),
}


def tensor_bytes() -> int:
    """Of all tensors alive, each storage once."""
    gc.collect()
    own = (torch.Tensor, torch.nn.Parameter)  # a compiler's caches have tensors without memory
    tensors = [each for each in gc.get_objects() if type(each) in own]
    return sum({each.data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def test_10_000_tokens_in_a_rolling_window_leave_nothing_behind() -> None:
    """What is there after 2,000 ids is there after 10,000, but for the ids: the process too, within its noise."""
    model = CONFIGS["decoder"].build()
    writing = Writing(model, [list(b"Once")], SamplingConfig(temperature=0, max_new_tokens=10_100))
    measured = []
    for made, _ in enumerate(writing.steps(), start=1):
        if made in (2000, 10_000):
            measured.append((tensor_bytes(), resident_bytes()))
        if made == 10_000:
            break
    (tensors, resident), (tensors_later, resident_later) = measured
    assert tensors_later - tensors <= 8_000 * 16, "8 bytes an id, in a tensor that doubles"
    assert resident_later - resident < 2 * 2**20


@pytest.mark.parametrize("how", ["plain", "drafts", "two results", "beams", "left halfway"])
def test_a_text_that_is_over_has_left_no_tensor(how: str) -> None:
    model = CONFIGS["decoder"].build()
    sampling = SamplingConfig(
        temperature=0.7, repetition_penalty=1.2, max_new_tokens=2 * CONTEXT, stop=("zzz",)
    )
    options = Options(proposer=NgramLookup() if how == "drafts" else None)
    before = []
    for _ in range(3):  # the first time, things that stay are made
        before.append(tensor_bytes())
        if how == "left halfway":
            next(stream_text(model, ByteTokenizer(), "Once", sampling))
        else:
            given = {"num_results": 2} if how == "two results" else {}
            beams = BeamConfig(num_beams=3) if how == "beams" else None
            list(
                generate_texts(
                    model, ByteTokenizer(), ["Once"], sampling, beams=beams, options=options, **given
                )
            )
    assert before[1] == before[2]


def cache_bytes(model: Any, prompt: list[int], count: int) -> set[int]:
    """Of the cache that is in use, at every id."""
    started, begin, seen = [], model.start, set()
    model.start = lambda *given, **settings: started.append(begin(*given, **settings)) or started[0]
    sampling = SamplingConfig(max_new_tokens=count)
    for _ in Writing(model, [prompt], sampling).steps():
        (start,) = started
        assert start.cache.length > 0
        seen.add(start.cache.bytes)
    return seen


def test_the_cache_in_use_is_what_plan_says(tiny_config) -> None:
    config = tiny_config("model.num_kv_heads=1")
    planned = estimate_cost(config, choose_device("cpu")).cache_bytes
    model = config.model.model_copy(update={"vocab_size": 257}).build()
    assert cache_bytes(model, [1, 2, 3], 3 * model.max_seq_len) == {planned}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("prompt_length", [4, CONTEXT, 3 * CONTEXT])
def test_the_cache_in_use_is_what_is_counted(family: str, prompt_length: int) -> None:
    """Counted on a model without weights, as for a plan; from the first id to beyond the context's end."""
    config = CONFIGS[family]
    read = prompt_length if prompt_length <= CONTEXT else CONTEXT // 2
    source_len = read if family == "encoder_decoder" else None
    planned = count_cache_bytes(on_meta(config), 1, CONTEXT, source_len=source_len)
    assert cache_bytes(config.build(), [1] * prompt_length, 3 * CONTEXT) == {planned}
