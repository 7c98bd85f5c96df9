"""Counts against what torch itself counts, allocates and keeps, for every preset and every kind of part."""

import itertools

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pellucid.config import from_tree, to_tree
from pellucid.model import (
    DecoderConfig,
    DecoderLM,
    EncoderDecoderConfig,
    EncoderDecoderLM,
    ModelConfig,
    Transformer,
)
from pellucid.model.stats import (
    count_cache_bytes,
    count_flops,
    count_parameters,
    count_token_flops,
    estimate_activation_bytes,
    on_meta,
)
from pellucid.presets import MODELS, model_preset

GPT2 = to_tree(model_preset("gpt2-small"))
LLAMA2_7B = {
    "vocab_size": 32000,
    "d_model": 4096,
    "num_heads": 32,
    "num_layers": 32,
    "max_seq_len": 4096,
    "feed_forward": {"kind": "swiglu", "d_ff": 11008},
    "tie_embeddings": False,
}
MIXTRAL_8X7B = LLAMA2_7B | {
    "num_kv_heads": 8,
    "feed_forward": {"kind": "moe", "d_ff": 14336, "num_experts": 8, "top_k": 2},
}

WIDTH = {"vocab_size": 97, "d_model": 64, "num_heads": 4, "max_seq_len": 64}
DECODER = WIDTH | {"kind": "decoder", "num_layers": 3}
ENCODER_DECODER = WIDTH | {"kind": "encoder_decoder", "num_encoder_layers": 2, "num_decoder_layers": 3}
FAMILIES = {"decoder": DECODER, "encoder-decoder": ENCODER_DECODER}

VARIANTS = {
    "default": {},
    "grouped queries, padded vocabulary": {"num_kv_heads": 2, "vocab_multiple": 64},
    "one key head, head_dim, free head": {"num_kv_heads": 1, "head_dim": 24, "tie_embeddings": False},
    "GPT-2's parts": {key: GPT2[key] for key in ("norm", "position", "feed_forward", "bias")},
    "window, parallel, sinusoidal, geglu": {
        "attention": {"window": 3, "window_pattern": "LG"},
        "block": "parallel",
        "position": {"kind": "sinusoidal"},
        "feed_forward": {"kind": "geglu", "d_ff": 40},
    },
    "QK-norm, sandwich, relu2, head_dim": {
        "attention": {"qk_norm": True},
        "block": "sandwich_norm",
        "feed_forward": {"kind": "relu2"},
        "head_dim": 32,
        "num_kv_heads": 2,
    },
    "post-norm, no position, relu, biases": {
        "block": "post_norm",
        "position": {"kind": "none"},
        "feed_forward": {"kind": "relu"},
        "bias": True,
    },
    "T5 positions, scale, free head, padded vocabulary": {
        "position": {"kind": "t5"},
        "attention": {"scale": 1.0},
        "tie_embeddings": False,
        "vocab_multiple": 32,
    },
    "ALiBi, window, biases in attention alone": {
        "position": {"kind": "alibi"},
        "attention": {"window": 5, "bias": True},
        "num_kv_heads": 1,
    },
    "soft-caps, no norm": {"attention": {"softcap": 5.0}, "logit_softcap": 9.0, "norm": {"kind": "none"}},
}
CONFIGS = [
    pytest.param(base | variant, id=f"{family}: {name}")
    for family, base in FAMILIES.items()
    for name, variant in VARIANTS.items()
]
every_config = pytest.mark.parametrize("tree", CONFIGS)


def config_of(tree: dict) -> ModelConfig:
    return from_tree(
        DecoderConfig if tree.get("kind", "decoder") == "decoder" else EncoderDecoderConfig, tree
    )


def meta(tree: dict) -> Transformer:
    return on_meta(config_of(tree))


def reference_attention(config: ModelConfig) -> ModelConfig:
    """The config whose attention consists of plain matrix products, which torch's counter sees."""
    attention = config.attention.model_copy(update={"kernel": "reference"})
    return config.model_copy(update={"attention": attention})


def inputs(model: Transformer, batch: int, length: int, source: int, device: str) -> dict[str, torch.Tensor]:
    ids = {"input_ids": torch.zeros(batch, length, dtype=torch.long, device=device)}
    if isinstance(model, EncoderDecoderLM):
        ids["encoder_ids"] = torch.zeros(batch, source, dtype=torch.long, device=device)
    return ids


# Parameters -------------------------------------------------------------------------------------------


@every_config
def test_parameters_are_those_of_the_built_model(tree: dict) -> None:
    counts, built = count_parameters(meta(tree)), config_of(tree).build()
    assert counts.total == counts.active == sum(p.numel() for p in built.parameters())
    assert counts == count_parameters(built)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_a_preset_are_those_of_the_module_and_nothing_is_allocated(name: str) -> None:
    model = on_meta(model_preset(name))
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("tree", "total", "active"),
    [
        (GPT2, 124_439_808, 124_439_808),
        (LLAMA2_7B, 6_738_415_616, 6_738_415_616),
        (MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248),
    ],
    ids=["GPT-2", "Llama 2 7B", "Mixtral 8x7B"],
)
def test_published_models_have_their_published_parameter_counts(tree: dict, total: int, active: int) -> None:
    parameters = count_parameters(meta(tree))
    assert (parameters.total, parameters.active) == (total, active)


def test_non_embedding_leaves_out_tables_and_a_free_head() -> None:
    assert count_parameters(meta(GPT2)).non_embedding == 124_439_808 - (50257 + 1024) * 768
    assert count_parameters(meta(LLAMA2_7B)).non_embedding == 6_738_415_616 - 2 * 32000 * 4096


def test_both_tables_of_an_encoder_decoder_and_t5s_two_bias_tables_are_no_layers() -> None:
    shared = {"position": {"kind": "t5"}, "tie_embeddings": False}
    counts = count_parameters(meta(ENCODER_DECODER | shared | {"share_embeddings": False}))
    assert counts.by_role["embedding"] == 2 * 97 * 64
    assert counts.by_role["position"] == 2 * 32 * 4
    assert counts.by_role["head"] == 97 * 64
    assert counts.non_embedding == count_parameters(meta(ENCODER_DECODER | shared)).non_embedding


# FLOPs ------------------------------------------------------------------------------------------------


def require_the_counters_flops(config: ModelConfig, shape: tuple[int, int], source: int) -> None:
    """Forward and backward of a batch, on the meta device, equal batch · count_flops to the integer."""
    model, (batch, length) = on_meta(reference_attention(config)), shape
    ids = inputs(model, batch, length, source, "meta")
    with FlopCounterMode(display=False) as forward:
        logits = model.head(model.hidden(**ids).states)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert logits.is_meta
    flops = count_flops(model, length, source if "encoder_ids" in ids else None)
    products = {str(kind): count for kind, count in forward.get_flop_counts()["Global"].items()}
    assert products.pop("aten.bmm") == batch * flops.attention
    assert products.keys() <= {"aten.mm", "aten.addmm"}
    assert sum(products.values()) == batch * flops.matrices
    assert forward.get_total_flops() + backward.get_total_flops() == batch * flops.training


@every_config
@pytest.mark.parametrize("shape", [(1, 7), (3, 20)], ids=str)
def test_flops_are_what_torchs_counter_counts(tree: dict, shape: tuple[int, int]) -> None:
    require_the_counters_flops(config_of(tree), shape, source=13)


@pytest.mark.parametrize("name", MODELS)
def test_flops_of_a_preset_are_what_torchs_counter_counts(name: str) -> None:
    require_the_counters_flops(model_preset(name), (1, 8), source=11)


def test_the_parts_of_an_encoder_decoder_see_source_or_target() -> None:
    """Counted by hand: one layer a side, no grouping, F = 32, S = 5 source tokens and T = 3 target tokens."""
    tree = ENCODER_DECODER | {"num_encoder_layers": 1, "num_decoder_layers": 1, "vocab_multiple": 50}
    flops = count_flops(meta(tree | {"feed_forward": {"kind": "gelu", "d_ff": 32}}), 3, 5)
    S, T, D, F = 5, 3, 64, 32
    encoder = S * (4 * D * D + 2 * D * F)
    decoder = T * (4 * D * D + 2 * D * F) + T * 2 * D * D + S * 2 * D * D
    assert flops.matrices == 2 * (encoder + decoder + T * D * 100)
    assert flops.attention == 4 * D * (S * S + T * T + T * S)


def test_a_source_is_as_long_as_the_target_unless_said() -> None:
    model = meta(ENCODER_DECODER)
    assert count_flops(model, 9) == count_flops(model, 9, 9) != count_flops(model, 9, 10)


def test_a_decoder_has_no_source() -> None:
    for count in (
        lambda: count_flops(meta(DECODER), 8, 9),
        lambda: count_cache_bytes(meta(DECODER), 1, 8, source_len=9),
        lambda: estimate_activation_bytes(meta(DECODER), 1, 8, 9),
    ):
        with pytest.raises(ValueError, match=r"source_len \(9\) is an encoder-decoder's"):
            count()


@every_config
def test_a_tokens_flops_are_an_even_share(tree: dict) -> None:
    model = meta(tree)
    token, sequence = count_token_flops(model, 11), count_flops(model, 11)
    assert 11 * token.matrices == sequence.matrices
    assert 11 * token.attention == sequence.attention
    assert token.training == 3 * token.forward == 3 * (token.matrices + token.attention)


MOE = {"feed_forward": {"kind": "moe", "num_experts": 6, "top_k": 2, "d_ff": 48}}


def test_a_mixture_of_experts_counts_the_router_and_the_chosen_experts() -> None:
    attention = 4 * 64 * 64
    layer = 6 * 64 + 2 * 3 * 64 * 48
    flops = count_flops(meta(DECODER | MOE), 10)
    assert flops.matrices == 2 * 10 * (3 * (attention + layer) + 97 * 64)
    parameters = count_parameters(meta(DECODER | MOE))
    assert parameters.total - parameters.active == 3 * 4 * 3 * 64 * 48
    assert parameters.total == sum(p.numel() for p in config_of(DECODER | MOE).build().parameters())


@pytest.mark.parametrize("base", FAMILIES.values(), ids=FAMILIES)
def test_where_every_expert_is_chosen_torchs_counter_agrees(base: dict) -> None:
    """On meta all experts are computed over all tokens, which is what top_k = num_experts costs."""
    dense = {"feed_forward": MOE["feed_forward"] | {"top_k": 6}}
    model = on_meta(reference_attention(config_of(base | dense)))
    ids = inputs(model, 2, 7, 5, "meta")
    with FlopCounterMode(display=False) as forward:
        model.head(model.hidden(**ids).states)
    flops = count_flops(model, 7, 5 if "encoder_ids" in ids else None)
    assert forward.get_total_flops() == 2 * flops.forward
    assert count_parameters(model).active == count_parameters(model).total


# Cache ---------------------------------------------------------------------------------------------


@every_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cache_bytes_are_those_of_the_cache_that_generation_uses(tree: dict, dtype: torch.dtype) -> None:
    model = config_of(tree).build()
    prompt, new = torch.zeros(3, 13, dtype=torch.long), 20
    held = model.start(prompt, new, dtype=dtype).cache.bytes
    if isinstance(model, DecoderLM):
        assert count_cache_bytes(model, 3, 13 + new, dtype) == held
    else:
        assert count_cache_bytes(model, 3, 1 + new, dtype, source_len=13) == held  # the target's start id


# Activations ------------------------------------------------------------------------------------------

B, T, S = 2, 37, 23


class Alive(TorchDispatchMode):
    """Notes every tensor that torch makes; `bytes` adds up those still held, by autograd or anybody."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                elements = tensor.untyped_storage().nbytes() // tensor.element_size()
                self._made[reference.cdata] = (reference, elements, tensor.untyped_storage().nbytes())
        return result

    def bytes(self) -> int:
        """Of activations: a number for each token. No weight, mask or table here has such a size."""
        return sum(
            size
            for reference, elements, size in self._made.values()
            if not reference.expired() and (elements % (B * T) == 0 or elements % (B * S) == 0)
        )


def bytes_kept_for_backward(config: ModelConfig, *, autocast: bool = False, recompute: str = "none") -> int:
    """What is still held after the forward pass over two sequences of 37 (from sources of 23)."""
    model = config.build().train()
    with Alive() as alive, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model.hidden(**inputs(model, B, T, S, "cpu"), recompute=recompute)
    kept = alive.bytes()
    del hidden
    return kept


def estimate(config: ModelConfig, **how) -> int:
    model = on_meta(config)
    return estimate_activation_bytes(
        model, B, T, S if isinstance(model, EncoderDecoderLM) else None, **how
    ).hidden


def scores_kept(tree: dict, *, autocast: bool) -> int:
    """By the kernel that the CPU takes for such a config (see kernels/)."""
    attention, position = tree.get("attention", {}), tree.get("position", {}).get("kind")
    if "softcap" in attention:
        return 12
    if position == "t5":
        return 4
    return 2 if autocast and "window" not in attention and position != "alibi" else 0


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@every_config
def test_activation_estimate_is_near_what_autograd_keeps(tree: dict, autocast: bool) -> None:
    config = config_of(tree)
    how = {"element_bytes": 2 if autocast else 4, "score_bytes": scores_kept(tree, autocast=autocast)}
    kept, share = bytes_kept_for_backward(config, autocast=autocast), 0.16
    if tree.get("feed_forward", {}).get("kind") == "relu":
        share = 0.3  # it keeps its result alone, and the estimate has what it is made from besides
    assert estimate(config, **how) == pytest.approx(kept, rel=share)


@pytest.mark.parametrize("base", FAMILIES.values(), ids=FAMILIES)
def test_activation_estimate_of_a_mixture_of_experts(base: dict) -> None:
    config = config_of(base | MOE)
    assert estimate(config) == pytest.approx(bytes_kept_for_backward(config), rel=0.1)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize(
    ("base", "layers"), [(DECODER, "num_layers"), (ENCODER_DECODER, "num_decoder_layers")]
)
def test_with_recompute_a_further_layer_keeps_its_input_and_perhaps_its_products(
    base: dict, layers: str, recompute: str
) -> None:
    configs = [config_of(base | {layers: count}) for count in (2, 7)]
    kept = [bytes_kept_for_backward(config, recompute=recompute) for config in configs]
    estimates = [estimate(config, recompute=recompute) for config in configs]
    assert estimates[1] - estimates[0] == pytest.approx(kept[1] - kept[0], rel=0.02)
    if recompute == "full":
        assert estimates[1] - estimates[0] == kept[1] - kept[0] == 5 * B * T * 64 * 4


def test_recompute_saves_memory_and_one_block_at_a_time_is_kept_whole() -> None:
    for tree in (DECODER | {"num_layers": 9}, ENCODER_DECODER | {"num_decoder_layers": 9}):
        nothing, selective, full = (
            estimate(config_of(tree), recompute=r) for r in ("none", "selective", "full")
        )
        assert full < selective < nothing
    one = estimate(config_of(DECODER | {"num_layers": 1}))
    assert estimate(config_of(DECODER | {"num_layers": 7}), recompute="full") == one + 7 * B * T * 64 * 4


def test_estimates_grow_with_every_token_and_kept_scores_with_their_square() -> None:
    model, scores = meta(GPT2), 12 * 12 * 4  # layers · H · bytes of a score
    one = estimate_activation_bytes(model, 1, 1).total
    for batch, time in itertools.product((1, 4), (64, 256)):
        tokens = batch * time
        assert estimate_activation_bytes(model, batch, time).total == tokens * one
        kept = estimate_activation_bytes(model, batch, time, score_bytes=4).total
        assert kept == tokens * (one + scores * time)


def test_logits_are_a_float32_number_for_each_id_of_each_target_token() -> None:
    for base in FAMILIES.values():
        activations = estimate_activation_bytes(meta(base | {"vocab_multiple": 64}), B, T)
        assert activations.logits == B * T * 97 * 4
        assert activations.total == activations.hidden + activations.logits
