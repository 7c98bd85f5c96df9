import itertools

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.model.stats import (
    count_cache_bytes,
    count_parameters,
    count_token_flops,
    count_training_state,
    estimate_activation_bytes,
    on_meta,
)

GPT2 = {
    "vocab_size": 50257,
    "d_model": 768,
    "num_heads": 12,
    "num_layers": 12,
    "max_seq_len": 1024,
    "norm": {"kind": "layernorm"},
    "position": {"kind": "learned"},
    "feed_forward": {"kind": "gelu"},
    "bias": True,
}
LLAMA2_7B = {
    "vocab_size": 32000,
    "d_model": 4096,
    "num_heads": 32,
    "num_layers": 32,
    "max_seq_len": 4096,
    "feed_forward": {"kind": "swiglu", "d_ff": 11008},
    "tie_embeddings": False,
}
SMOLLM2_135M = {
    "vocab_size": 49152,
    "d_model": 576,
    "num_heads": 9,
    "num_kv_heads": 3,
    "num_layers": 30,
    "max_seq_len": 8192,
    "feed_forward": {"kind": "swiglu", "d_ff": 1536},
}
TINY = {"vocab_size": 97, "d_model": 64, "num_heads": 4, "num_layers": 3, "max_seq_len": 64}
VARIANTS = {
    "default": {},
    "grouped-query": {"num_kv_heads": 2},
    "head_dim, free head": {"num_kv_heads": 1, "head_dim": 24, "tie_embeddings": False},
    "GPT-2's parts": {k: GPT2[k] for k in ("norm", "position", "feed_forward", "bias")},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def meta(tree: dict) -> DecoderLM:
    return on_meta(from_tree(DecoderConfig, tree))


@pytest.mark.parametrize(
    ("tree", "total"),
    [(GPT2, 124_439_808), (LLAMA2_7B, 6_738_415_616), (SMOLLM2_135M, 134_515_008)],
    ids=["GPT-2", "Llama 2 7B", "SmolLM2 135M"],
)
def test_published_models_have_their_published_parameter_counts(tree: dict, total: int) -> None:
    assert count_parameters(meta(tree)).total == total


def test_non_embedding_leaves_out_tables_and_a_free_head() -> None:
    assert count_parameters(meta(GPT2)).non_embedding == 124_439_808 - (50257 + 1024) * 768
    assert count_parameters(meta(LLAMA2_7B)).non_embedding == 6_738_415_616 - 2 * 32000 * 4096


@variants
def test_parameters_are_those_of_the_built_model(variant: str) -> None:
    config = from_tree(DecoderConfig, TINY | VARIANTS[variant])
    counts = count_parameters(on_meta(config))
    assert counts.total == sum(p.numel() for p in DecoderLM(config).parameters())
    assert counts == count_parameters(DecoderLM(config))


@variants
@pytest.mark.parametrize("shape", [(1, 7), (3, 50)], ids=str)
def test_flops_are_what_torchs_counter_counts(variant: str, shape: tuple[int, int]) -> None:
    model = meta(TINY | VARIANTS[variant])  # on the meta device attention runs as plain matrix products
    ids = torch.zeros(shape, dtype=torch.long, device="meta")
    flops = count_token_flops(model, seq_len=shape[1])
    with FlopCounterMode(display=False) as forward:
        logits = model(ids)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    tokens = shape[0] * shape[1]
    assert forward.get_total_flops() == tokens * flops.forward
    assert forward.get_total_flops() + backward.get_total_flops() == tokens * flops.training
    products = {str(kind): count for kind, count in forward.get_flop_counts()["Global"].items()}
    assert products["aten.bmm"] == tokens * flops.attention


def test_training_state_is_weights_gradients_and_two_moments() -> None:
    state = count_training_state(meta(GPT2))
    n = 124_439_808
    assert (state.weights, state.gradients, state.optimizer, state.total) == (4 * n, 4 * n, 8 * n, 16 * n)
    mixed = count_training_state(meta(GPT2), weight_bytes=2, gradient_bytes=2, moment_bytes=4)
    assert mixed.total == 12 * n


def test_training_state_is_what_torch_allocates() -> None:
    model = DecoderLM(from_tree(DecoderConfig, TINY))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    moments = [
        t for s in optimizer.state.values() for t in s.values() if t.dim()
    ]  # without the step counters
    gradients = [p.grad for p in model.parameters()]
    held = [sum(t.nbytes for t in tensors) for tensors in (model.parameters(), gradients, moments)]
    state = count_training_state(model)
    assert [state.weights, state.gradients, state.optimizer] == held


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_are_those_of_the_allocated_cache(variant: str, dtype: torch.dtype) -> None:
    model = DecoderLM(from_tree(DecoderConfig, TINY | VARIANTS[variant]))
    assert count_cache_bytes(model, 3, 20, dtype) == model.new_cache(3, 20, dtype=dtype).bytes


def bytes_kept_for_backward(config: DecoderConfig, *, autocast: bool = False, recompute: bool = False) -> int:
    """What autograd really saves of 2 sequences of 37, parameters and their copies left out."""
    model, found = DecoderLM(config), {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if (
            storage.data_ptr() not in parameters and tensor.numel() % (2 * 37) == 0
        ):  # no weight has such a size
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(2, 37, dtype=torch.long)
    with saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model.head(model.hidden(ids, recompute=recompute).states)
    del logits
    return sum(found.values())


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@variants
def test_activation_estimate_is_near_what_autograd_keeps(variant: str, autocast: bool) -> None:
    config = from_tree(DecoderConfig, TINY | VARIANTS[variant])
    how = {"element_bytes": 2, "keeps_scores": True} if autocast else {}  # bf16 takes short_attention here
    estimate = estimate_activation_bytes(on_meta(config), 2, 37, **how)
    assert estimate.hidden == pytest.approx(bytes_kept_for_backward(config, autocast=autocast), rel=0.15)
    assert estimate.logits == 2 * 37 * 97 * 4
    assert estimate.total == estimate.hidden + estimate.logits


def test_with_recompute_a_further_layer_keeps_only_its_input() -> None:
    configs = [from_tree(DecoderConfig, TINY | {"num_layers": n}) for n in (2, 7)]
    kept = [bytes_kept_for_backward(config, recompute=True) for config in configs]
    estimates = [estimate_activation_bytes(on_meta(c), 2, 37, recompute=True).hidden for c in configs]
    assert estimates[1] - estimates[0] == kept[1] - kept[0] == 5 * 2 * 37 * 64 * 4


def test_with_recompute_one_block_at_a_time_is_kept_whole() -> None:
    for layers in (1, 7):
        model = meta(TINY | {"num_layers": layers})
        whole, less = (estimate_activation_bytes(model, 2, 37, recompute=r).hidden for r in (False, True))
        assert (less < whole) == (layers > 1)
        one = estimate_activation_bytes(meta(TINY | {"num_layers": 1}), 2, 37).hidden
        assert less == one + layers * 2 * 37 * 64 * 4


def test_estimates_grow_with_every_token_and_kept_scores_with_their_square() -> None:
    model, scores = meta(GPT2), 12 * 12 * 4  # layers · H · element bytes
    one = estimate_activation_bytes(model, 1, 1).total
    for batch, time in itertools.product((1, 4), (64, 256)):
        tokens = batch * time
        assert estimate_activation_bytes(model, batch, time).total == tokens * one
        kept = estimate_activation_bytes(model, batch, time, keeps_scores=True).total
        assert kept == tokens * (one + scores * time)
