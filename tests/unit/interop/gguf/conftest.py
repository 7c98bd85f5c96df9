"""Tiny models of every family that GGUF files are written for, and their tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import from_tree, merge
from pellucid.interop.gguf import write_gguf
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.tokenizers import Tokenizer, build

pytest.importorskip("gguf", reason="the gguf package is not installed")

SIZES = {"d_model": 32, "num_layers": 2, "num_heads": 2, "max_seq_len": 32, "vocab_size": 301}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_kv_heads": 1},
    "mixtral": {"feed_forward": {"kind": "moe", "num_experts": 3, "top_k": 2}},
    "qwen3": {"attention": {"qk_norm": True}, "head_dim": 32},
    "gemma2": {
        "block": "sandwich_norm",
        "feed_forward": {"kind": "geglu", "approximate": True},
        "scale_embeddings": True,
        "attention": {"softcap": 50.0, "window": 8, "window_pattern": "LG"},
        "logit_softcap": 30.0,
    },
    "gpt2": {
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "approximate": True},
        "bias": True,
    },
}


def config_of(family: str, changes: dict[str, Any]) -> DecoderConfig:
    return from_tree(DecoderConfig, merge(merge(SIZES, FAMILIES[family]), changes))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """301 ids: GPT-2's first 300 ranks and the end of text."""
    return build({"kind": "gpt2", "max_ranks": 300})


@pytest.fixture(scope="session")
def model_of() -> Callable[..., DecoderLM]:
    """`model_of(family, **changes)`: random weights far from their initial values, gains and biases too."""

    @torch.no_grad()
    def made(family: str, **changes: Any) -> DecoderLM:
        model = config_of(family, changes).build(seed=3)
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    return made


@pytest.fixture
def written(tmp_path: Path, tokenizer: Tokenizer, model_of: Callable[..., DecoderLM]) -> Callable[..., Path]:
    """`written(family, number_format, **changes)`: the path of a file."""

    def write(family: str = "llama", number_format: Any = "f32", **changes: Any) -> Path:
        path = tmp_path / "model.gguf"
        write_gguf(path, model_of(family, **changes), tokenizer, number_format=number_format)
        return path

    return write
