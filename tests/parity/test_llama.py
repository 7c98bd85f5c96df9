"""Our decoder equals transformers' LlamaForCausalLM on tiny random weights, in both directions.

transformers computes norms, angles and softmax in float32 whatever the model's dtype, which alone is an
error of 1e-8. To compare formulas and not roundings, its own unchanged code runs under `Float64Throughout`,
which answers each request for float32 with float64; that it agrees as it stands is a test of its own.
"""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pellucid.config import from_tree
from pellucid.interop.maps import llama
from pellucid.model import DecoderConfig, DecoderLM

VARIANTS = {
    "multi-head": {},
    "grouped-query": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "free head": {"num_kv_heads": 2, "tie_embeddings": False},
    "head_dim of its own": {"num_kv_heads": 2, "head_dim": 6},
    "another theta": {"position": {"kind": "rope", "theta": 500.0}},
    "biases": {"num_kv_heads": 2, "bias": True, "tie_embeddings": False},
    "another eps": {"norm": {"kind": "rmsnorm", "eps": 0.1}},
}


class Float64Throughout(TorchFunctionMode):
    """Every float32 that torch functions are asked for becomes float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def widen(value):
            return torch.float64 if value is torch.float32 else value

        if function is torch.Tensor.float:
            function = torch.Tensor.double
        return function(*map(widen, args), **{name: widen(value) for name, value in (kwargs or {}).items()})


def config_of(variant: str) -> DecoderConfig:
    tree = {"vocab_size": 61, "d_model": 32, "num_layers": 3, "num_heads": 4, "max_seq_len": 48}
    return from_tree(
        DecoderConfig, tree | {"feed_forward": {"kind": "swiglu", "d_ff": 40}} | VARIANTS[variant]
    )


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Large enough that every part matters: gains around 1, biases and matrices far from 0."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.empty(parameter.shape, dtype=torch.float64).normal_(generator=generator)
        is_gain = "norm" in name
        parameter.copy_(1 + 0.4 * noise if is_gain else 0.3 * noise)


def some_ids() -> torch.Tensor:
    return torch.randint(0, 61, (2, 40), generator=torch.Generator().manual_seed(1))


def build_theirs(config: DecoderConfig, attention: str) -> LlamaForCausalLM:
    theirs = AutoModelForCausalLM.from_config(
        LlamaConfig(**llama.config_to_hf(config)), attn_implementation=attention, dtype=torch.float64
    )
    randomise(theirs)
    return theirs.eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_their_weights_give_their_logits_in_our_model(variant: str, attention: str) -> None:
    with Float64Throughout():
        theirs = build_theirs(config_of(variant), attention)
        expected = theirs(input_ids=some_ids()).logits
    config = llama.config_from_hf(theirs.config.to_dict())
    assert config == config_of(variant)
    ours = DecoderLM(config).double()
    ours.load_state_dict(llama.weights_from_hf(theirs.state_dict(), config))
    assert expected.std() > 0.1
    assert (ours(some_ids()) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_our_exported_files_give_our_logits_in_their_model(variant: str, tmp_path) -> None:
    config = config_of(variant)
    ours = DecoderLM(config).double()
    randomise(ours)
    (tmp_path / "config.json").write_text(json.dumps(llama.config_to_hf(config)))
    weights = llama.weights_to_hf(ours.state_dict(), config)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with Float64Throughout():
        theirs, loading = LlamaForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
        )
        expected = theirs.eval()(input_ids=some_ids()).logits
    assert not any(loading.values()), loading
    assert (ours(some_ids()) - expected).abs().max() <= 1e-10


@torch.no_grad()
def test_their_code_as_published_agrees_in_float32() -> None:
    config = config_of("grouped-query")
    theirs = build_theirs(config, "sdpa").float()
    ours = DecoderLM(config)
    ours.load_state_dict(llama.weights_from_hf(theirs.state_dict(), config))
    expected = theirs(input_ids=some_ids()).logits
    assert (ours(some_ids()) - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_comparison_sees_a_wrong_weight() -> None:
    config = config_of("multi-head")
    with Float64Throughout():
        theirs = build_theirs(config, "eager")
        expected = theirs(input_ids=some_ids()).logits
    weights = llama.weights_from_hf(theirs.state_dict(), config)
    for name in weights:
        ours = DecoderLM(config).double()
        ours.load_state_dict(weights)
        ours.get_parameter(name).view(-1)[5] += 1e-3
        assert (ours(some_ids()) - expected).abs().max() > 1e-8, name
