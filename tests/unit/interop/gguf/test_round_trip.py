"""Ours → GGUF → ours, and what the gguf package's own reader finds in the file."""

import gguf
import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.interop.exchange import build
from pellucid.interop.gguf import format_of_file, read_gguf, rounded, write_gguf

STEPS = {"f16": 2**-11, "bf16": 2**-8, "q8_0": 0.57 / 127, "q4_0": 1 / 8, "q4_1": 1 / 15}
"""What a number may be off by, of the largest of its block (of a scale that is itself kept in 16 bits)."""
YARN = {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 16}
LLAMAS = [
    {},
    {"tie_embeddings": False, "bias": True},
    {"attention": {"bias": True}},
    {"head_dim": 8, "vocab_multiple": 64},
    {"position": {"kind": "rope", "theta": 50_000.0, "scaling": {"kind": "linear", "factor": 4.0}}},
    {"position": {"kind": "rope", "scaling": YARN}},
    {"position": {"kind": "rope", "scaling": {**YARN, "attention_factor": 1.5}}},
]


@pytest.mark.parametrize("changes", LLAMAS, ids=lambda changes: ".".join(changes) or "plain")
def test_a_llama_comes_back_to_the_bit(written, model_of, tokenizer, changes):
    ours = model_of("llama", **changes)
    back = read_gguf(written("llama", "f32", **changes))
    state = {name: tensor[: back.weights[name].shape[0]] for name, tensor in ours.state_dict().items()}
    assert back.weights.keys() == state.keys()
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in state.items())
    ids = torch.arange(20)[None]
    assert torch.allclose(build(back.config, back.weights)(ids), ours(ids), atol=1e-5)
    text = "It's the old house,  9 o'clock.\n"
    assert back.tokenizer.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert back.tokenizer.end_of_text_id == tokenizer.end_of_text_id


def test_its_config_comes_back(written):
    back = read_gguf(
        written(
            "llama",
            num_kv_heads=None,
            position={"kind": "rope", "theta": 123456.0},
            norm={"kind": "rmsnorm", "eps": 3e-6},
        )
    )
    config = back.config
    assert (config.d_model, config.num_heads, config.kv_heads, config.max_seq_len) == (32, 2, 2, 32)
    assert (config.position.theta, config.norm.eps, config.tie_embeddings) == (123456.0, 3e-6, True)


@pytest.mark.parametrize("number_format", STEPS)
def test_rounded_numbers_are_within_their_step(written, model_of, number_format):
    ours = model_of("llama").state_dict()
    for name, back in read_gguf(written("llama", number_format)).weights.items():
        if back.dim() == 1:
            assert torch.equal(back, ours[name]), name
            continue
        blocks = ours[name].reshape(-1, 32)
        spread = blocks.amax(-1) - blocks.amin(-1) if number_format == "q4_1" else blocks.abs().amax(-1)
        off = (back.reshape(-1, 32) - blocks).abs().amax(-1)
        assert (off <= 1.01 * STEPS[number_format] * spread + 1e-7).all(), name
        assert off.max() > 0


@pytest.mark.parametrize("number_format", ["f32", *STEPS])
def test_the_model_to_compare_with_has_the_digits_of_the_file(written, model_of, number_format):
    back = read_gguf(written("llama", number_format)).weights
    expected = rounded(model_of("llama"), number_format).state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("number_format", ["f32", *STEPS])
def test_the_file_says_its_format(written, number_format):
    assert format_of_file(written("llama", number_format)) == number_format


def test_rows_of_no_whole_blocks_are_kept_in_f16(written):
    stored = _tensors(written("llama", "q8_0", d_model=24, feed_forward={"kind": "swiglu", "d_ff": 64}))
    assert stored["blk.0.attn_q.weight"].tensor_type.name == "F16"
    assert stored["blk.0.ffn_down.weight"].tensor_type.name == "Q8_0"


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_head_of_a_4_bit_file_has_8_bits(written, is_tied):
    stored = _tensors(written("llama", "q4_0", tie_embeddings=is_tied))
    kinds = {name: tensor.tensor_type.name for name, tensor in stored.items()}
    assert kinds["token_embd.weight"] == ("Q8_0" if is_tied else "Q4_0")
    assert kinds.get("output.weight") == (None if is_tied else "Q8_0")
    assert kinds["blk.0.attn_q.weight"] == "Q4_0"


def test_numbers_beyond_f16_are_refused(model_of, tokenizer, tmp_path):
    model = model_of("llama")
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.query.weight")[0, 0] = 70_000.0
    with pytest.raises(ConfigError, match="65504; quantize to bf16"):
        write_gguf(tmp_path / "m.gguf", model, tokenizer, number_format="f16")


# The other families, by the gguf package's reader ------------------------------------------------------


def test_mixtrals_experts_are_stacked_and_its_router_is_exact(written, model_of):
    ours, stored = model_of("mixtral").state_dict(), _tensors(written("mixtral", "f16"))
    assert stored["blk.1.ffn_gate_inp.weight"].tensor_type.name == "F32"
    up = torch.from_numpy(np.array(stored["blk.1.ffn_up_exps.weight"].data))
    assert torch.equal(up, ours["blocks.1.feed_forward.up"].half())


def test_qwens_queries_stay_in_halves(written, model_of):
    ours, stored = model_of("qwen3").state_dict(), _tensors(written("qwen3"))
    assert np.array_equal(stored["blk.0.attn_q.weight"].data, ours["blocks.0.attention.query.weight"])
    assert np.array_equal(stored["blk.0.attn_q_norm.weight"].data, ours["blocks.0.attention.query_norm.gain"])


def test_gemmas_gains_are_whole(written, model_of):
    ours, stored = model_of("gemma2").state_dict(), _tensors(written("gemma2"))
    found = stored["blk.0.post_attention_norm.weight"].data
    assert np.abs(found - ours["blocks.0.attention_out_norm.gain"].numpy()).max() < 1e-6


def test_gpt2s_matrices_stand_upright(written, model_of):
    ours, stored = model_of("gpt2").state_dict(), _tensors(written("gpt2", "f16"))
    joined = [ours[f"blocks.0.attention.{part}.weight"] for part in ("query", "key", "value")]
    assert np.array_equal(stored["blk.0.attn_qkv.weight"].data, torch.cat(joined).half())
    assert stored["position_embd.weight"].tensor_type.name == "F32"


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3", "gemma2", "gpt2"])
def test_every_parameter_is_in_the_file_once(written, model_of, family):
    stored = _tensors(written(family, "q8_0"))
    parameters = sum(parameter.numel() for parameter in model_of(family).parameters())
    assert sum(int(tensor.n_elements) for tensor in stored.values()) == parameters


def _tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    ("family", "name"),
    [("mixtral", "blocks.0.feed_forward.router.weight"), ("gpt2", "position.table")],
)
def test_what_the_file_keeps_exact_stays_so_in_the_model_to_compare_with(model_of, family, name):
    ours = model_of(family)
    found = rounded(ours, "q4_0")
    assert torch.equal(found.get_parameter(name), ours.get_parameter(name))
    assert not torch.equal(found.get_parameter("embedding.table"), ours.get_parameter("embedding.table"))
