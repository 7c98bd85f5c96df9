"""Small models and their walks. Everything is random but the structure."""

import pytest
import torch

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.report.walkthrough import Origin, walk
from pellucid.tokenizers import build

SIZES = {"vocab_size": 257, "d_model": 16, "num_heads": 4, "num_kv_heads": 2, "max_seq_len": 40}
TEXT = "To be, or not"


@pytest.fixture
def byte_tokenizer():
    return build("byte")


@pytest.fixture
def decoder():
    def make(**settings):
        model = from_tree(DecoderConfig, {**SIZES, "num_layers": 2, **settings}).build()
        return _livelier(model)

    return make


@pytest.fixture
def encoder_decoder():
    def make(**settings):
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 2}
        return _livelier(from_tree(EncoderDecoderConfig, {**SIZES, **layers, **settings}).build())

    return make


@pytest.fixture
def stroll(byte_tokenizer):
    """Walk TEXT through a model."""

    def run(model, text=TEXT, **settings):
        settings.setdefault("origin", Origin.random("a small model", seed=0))
        return walk(model, byte_tokenizer, text, **settings)

    return run


@torch.no_grad()
def _livelier(model):
    """Weights ten times as large, so that attention and logits are far from even."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(10)
    return model
