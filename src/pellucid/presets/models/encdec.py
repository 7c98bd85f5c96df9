"""Encoder-decoders from the modern parts: RMSNorm before each branch, RoPE, GeGLU.

Meant as about 125, 350 and 750 million parameters. The vocabulary is GPT-2's 50,257 ids and the 100 sentinels of
span corruption, and each size has as many tables (one, two, three) as bring it closest. The smallest stays above:
its layers alone have 99 million, and a table 39.
"""

from pellucid.model import EncoderDecoderConfig
from pellucid.model.feedforward import GEGLUConfig

VOCABULARY = 50257 + 100


def encdec_small() -> EncoderDecoderConfig:
    """137,789,184 parameters: sources, targets and head share one table."""
    return _sized(d_model=768, num_heads=12, num_layers=6, share_embeddings=True, tie_embeddings=True)


def encdec_medium() -> EncoderDecoderConfig:
    """339,103,744 parameters: sources and targets share a table, the head is free."""
    return _sized(d_model=1024, num_heads=16, num_layers=8, share_embeddings=True, tie_embeddings=False)


def encdec_large() -> EncoderDecoderConfig:
    """747,884,800 parameters: sources, targets and head have a table each."""
    return _sized(d_model=1280, num_heads=20, num_layers=12, share_embeddings=False, tie_embeddings=False)


def _sized(
    *, d_model: int, num_heads: int, num_layers: int, share_embeddings: bool, tie_embeddings: bool
) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        vocab_size=VOCABULARY,
        d_model=d_model,
        num_heads=num_heads,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        max_seq_len=512,
        feed_forward=GEGLUConfig(),
        share_embeddings=share_embeddings,
        tie_embeddings=tie_embeddings,
    )
