"""GPT-2 in its four sizes: LayerNorm, learned positions, GELU, biases, one table for ids and head.

Source: Radford et al. 2019, table 2. Published weights have exactly these shapes.
"""

from pellucid.model import DecoderConfig
from pellucid.model.feedforward import GELUConfig
from pellucid.model.norms import LayerNormConfig
from pellucid.model.positions import LearnedPositionConfig


def gpt2_small() -> DecoderConfig:
    """124,439,808 parameters."""
    return classic(d_model=768, num_layers=12, num_heads=12)


def gpt2_medium() -> DecoderConfig:
    """354,823,168 parameters."""
    return classic(d_model=1024, num_layers=24, num_heads=16)


def gpt2_large() -> DecoderConfig:
    """774,030,080 parameters."""
    return classic(d_model=1280, num_layers=36, num_heads=20)


def gpt2_xl() -> DecoderConfig:
    """1,557,611,200 parameters."""
    return classic(d_model=1600, num_layers=48, num_heads=25)


def classic(*, d_model: int, num_layers: int, num_heads: int, max_seq_len: int = 1024) -> DecoderConfig:
    """GPT-2's parts in any size."""
    return DecoderConfig(
        vocab_size=50257,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        max_seq_len=max_seq_len,
        norm=LayerNormConfig(eps=1e-5, bias=True),
        position=LearnedPositionConfig(),
        feed_forward=GELUConfig(approximate=True),
        bias=True,
        tie_embeddings=True,
    )
