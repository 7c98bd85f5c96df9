"""What GGUF files cannot say is refused by name, before anything is written."""

import pytest

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.gguf import write_gguf
from pellucid.interop.gguf.metadata import frequency_factors
from pellucid.model import EncoderDecoderConfig
from pellucid.tokenizers import build

LLAMA3 = {"kind": "llama3", "original_max_seq_len": 16}
YARN = {"kind": "yarn", "factor": 2.0, "original_max_seq_len": 16}


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (
            "llama",
            {"position": {"kind": "rope", "scaling": {**YARN, "beta_fast": 16.0}}},
            "beta_fast: must be 32",
        ),
        (
            "llama",
            {"position": {"kind": "rope", "scaling": {**YARN, "beta_slow": 2.0}}},
            "beta_slow: must be 1",
        ),
        ("mixtral", {"attention": {"window": 8}}, "attention.window: there is none"),
        ("qwen3", {"attention": {"window": 8}}, "attention.window: there is none"),
        ("qwen3", {"attention": {"bias": True}}, "attention.bias: must be False"),
        ("qwen3", {"position": {"kind": "rope", "scaling": LLAMA3}}, "'llama3' is read in the llama"),
        ("gemma2", {"position": {"kind": "rope", "scaling": LLAMA3}}, "'llama3' is read in the llama"),
        ("gemma2", {"attention": {"softcap": None}}, "both are needed"),
        ("gemma2", {"logit_softcap": None}, "both are needed"),
        ("gemma2", {"attention": {"window_pattern": "GL"}}, "window_pattern: must be 'LG'"),
        ("gemma2", {"attention": {"scale": 0.5}}, "attention.scale: must be 0.25"),
        ("gemma2", {"num_layers": 46, "head_dim": 4}, "attention.scale: must be 0.25"),
        ("gemma2", {"feed_forward": {"approximate": False}}, "approximate: must be True"),
        ("gemma2", {"tie_embeddings": False}, "tie_embeddings: must be True"),
        ("gpt2", {"feed_forward": {"approximate": False}}, "not the exact GELU"),
        ("gpt2", {"feed_forward": {"kind": "relu"}}, "not 'relu'"),
    ],
)
def test_refused(model_of, tokenizer, tmp_path, family, changes, named):
    path = tmp_path / "model.gguf"
    with pytest.raises(ConfigError, match=r"llama\.cpp's .* cannot express this model") as refused:
        write_gguf(path, model_of(family, **changes), tokenizer)
    assert named in str(refused.value)
    assert not path.exists()


def test_the_usual_scale_may_be_written_out(model_of, tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", model_of("gemma2", attention={"scale": 0.25}), tokenizer)


def test_an_encoder_decoder_is_refused(tokenizer, tmp_path):
    tree = {"norm": {"kind": "rmsnorm"}, "position": {"kind": "t5"}, "feed_forward": {"kind": "geglu"}}
    sizes = {"d_model": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = from_tree(
        EncoderDecoderConfig, {**tree, **sizes, "vocab_size": 301, "attention": {"scale": 1.0}}
    )
    with pytest.raises(ConfigError, match=r"T5 v1\.1 family are not written"):
        write_gguf(tmp_path / "m.gguf", config.build(), tokenizer)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(model_of, tmp_path):
    with pytest.raises(CheckpointError, match="do not belong together"):
        write_gguf(tmp_path / "m.gguf", model_of("llama"), build({"kind": "gpt2", "max_ranks": 400}))
    assert not (tmp_path / "m.gguf").exists()


def test_llama3s_factors_divide_the_frequencies(model_of):
    config = model_of(
        "llama", head_dim=32, position={"kind": "rope", "scaling": {**LLAMA3, "factor": 4.0}}
    ).config
    factors = frequency_factors(config)
    assert factors.shape == (16,)
    assert factors[-1] == 4.0  # the slowest
    assert factors[0] == 1 or 1 < factors[0] < 4
    assert frequency_factors(model_of("llama").config) is None
