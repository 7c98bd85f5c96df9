"""What `plan` says, against a model that is really built."""

import pytest
import torch

from pellucid.cli.options import run_config
from pellucid.model.stats import count_flops, estimate_activation_bytes, on_meta
from pellucid.runtime.device import Device
from pellucid.train.cost import estimate_cost

CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")
CPU_BF16 = Device("cpu", "for tests", has_bf16=True, can_compile=False, compile_reason="for tests")
GAPS = (
    "encdec-quick",
    "model.d_model=16",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=2",
    "model.max_seq_len=64",
    "train.steps=8",
    "train.batch_tokens=512",
)


@pytest.fixture
def gaps(corpus):
    """A tiny encoder-decoder that learns to fill in gaps."""
    return lambda *overrides: run_config([*GAPS, f"data.path={corpus}", *overrides])


def test_the_counts_are_those_of_the_built_model(tiny_config, workdir):
    config = tiny_config()
    cost = estimate_cost(config, CPU)
    model = config.model.model_copy(update={"vocab_size": 257}).build()
    parameters = sum(p.numel() for p in model.parameters())
    assert cost.family == "decoder"
    assert cost.parameters == cost.active_parameters == parameters
    assert cost.non_embedding_parameters == parameters - 257 * 16
    assert (cost.weights_bytes, cost.gradients_bytes, cost.optimizer_bytes) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )
    assert cost.total_bytes == 16 * parameters + cost.activations_bytes + cost.buffers_bytes
    assert cost.buffers_bytes == 4 * 257 * 16 + 4 * 128 * 257  # the table in float32, logits of 128 tokens
    assert (cost.vocab_size, cost.steps, cost.tokens) == (257, 8, 1024)
    assert (cost.source_len, cost.target_len) == (None, 16)
    assert cost.cache_bytes == model.new_cache(1).bytes
    assert cost.flops_per_token == 3 * count_flops(model, 16).forward // 16
    assert cost.flops == 1024 * cost.flops_per_token
    assert list(workdir.iterdir()) == []


def test_an_encoder_decoder_is_counted_over_the_sources_and_targets_it_gets(gaps, workdir):
    """Windows of 64 ids lose 10 of them in 3 spans: 57 ids of source and 15 of target."""
    config = gaps()
    cost = estimate_cost(config, CPU)
    model = config.model.model_copy(update={"vocab_size": 357}).build()
    assert cost.family == "encoder_decoder"
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert (cost.source_len, cost.target_len) == (57, 15)
    flops = count_flops(model, 15, 57).training
    assert (cost.flops_per_token, cost.flops) == (flops // 64, 8 * 8 * flops)
    assert cost.activations_bytes == estimate_activation_bytes(model, cost.micro_batch, 15, 57).hidden
    longest = torch.zeros(1, 64, dtype=torch.long)
    assert cost.cache_bytes == model.start(longest, max_new_tokens=63).cache.bytes


def test_a_mixture_of_experts_has_fewer_active_parameters(tiny_config):
    config = tiny_config("model.feed_forward.kind=moe", "model.feed_forward.num_experts=5")
    cost = estimate_cost(config, CPU)
    model = config.model.model_copy(update={"vocab_size": 257}).build()
    expert = sum(matrices[0].numel() for matrices in (model.blocks[0].feed_forward.gate,) * 3)
    assert cost.parameters - cost.active_parameters == 3 * expert  # 2 of 5 work on a token
    assert ("parameters", f"{cost.parameters:,} ({cost.active_parameters:,} active, "
            f"{cost.non_embedding_parameters:,} without embeddings)") in cost.rows()  # fmt: skip


@pytest.mark.parametrize("build", ["tiny_config", "gaps"])
def test_what_is_computed_again_takes_no_memory(build, request):
    layers = ("model.num_layers=4",) if build == "tiny_config" else ("model.num_encoder_layers=6",)
    none, selective, full = (
        estimate_cost(
            request.getfixturevalue(build)(*layers, f"train.activation_checkpointing={mode}"), CPU
        ).activations_bytes
        for mode in ("none", "selective", "full")
    )
    assert full < selective < none


@pytest.mark.parametrize(
    ("overrides", "device", "score_bytes"),
    [
        ((), CPU, 0),
        (("train.precision=bf16",), CPU_BF16, 2),
        (("train.precision=bf16", "model.attention.window=4"), CPU_BF16, 0),
        (("train.precision=bf16", "model.position.kind=alibi"), CPU_BF16, 0),
        (("model.attention.kernel=reference",), CPU, 8),
        (("model.attention.softcap=20",), CPU, 12),
        (("model.position.kind=t5",), CPU, 4),
    ],
)
def test_scores_count_where_the_kernel_keeps_them(tiny_config, overrides, device, score_bytes):
    config = tiny_config(*overrides)
    cost = estimate_cost(config, device)
    model = on_meta(config.model.model_copy(update={"vocab_size": 257}))
    element_bytes = 2 if "train.precision=bf16" in overrides else 4
    wanted = estimate_activation_bytes(
        model, cost.micro_batch, 16, element_bytes=element_bytes, score_bytes=score_bytes
    )
    assert cost.activations_bytes == wanted.hidden


def test_a_run_by_time_has_no_total(tiny_config):
    cost = estimate_cost(tiny_config("train.steps=", "train.max_seconds=5"), CPU)
    assert (cost.steps, cost.tokens, cost.flops) == (None, None, None)
    assert ("length", "by time") in cost.rows()


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "parameters",
        "vocabulary",
        "weights",
        "optimizer state",
        "memory in all",
        "cache",
        "window",
        "FLOPs",
    ],
)
def test_the_table_has_a_row_for_each(tiny_config, name):
    assert any(row == name and value for row, value in estimate_cost(tiny_config(), CPU).rows())
