"""T5, version 1.1: relative positions, gated GELU, RMSNorm, scores that are not divided by sqrt(E), a free head.

Source: Raffel et al. 2020, arXiv:1910.10683; version 1.1: google-research/text-to-text-transfer-transformer,
released_checkpoints.md.
"""

from pellucid.model import EncoderDecoderConfig
from pellucid.model.attention import AttentionConfig
from pellucid.model.feedforward import GEGLUConfig
from pellucid.model.norms import RMSNormConfig
from pellucid.model.positions import T5PositionConfig


def t5_small() -> EncoderDecoderConfig:
    """76,961,152 parameters, as google/t5-v1_1-small."""
    return EncoderDecoderConfig(
        vocab_size=32128,
        d_model=512,
        num_heads=6,
        head_dim=64,
        num_encoder_layers=8,
        num_decoder_layers=8,
        max_seq_len=512,
        norm=RMSNormConfig(eps=1e-6),
        position=T5PositionConfig(num_buckets=32, max_distance=128),
        attention=AttentionConfig(scale=1.0),
        feed_forward=GEGLUConfig(d_ff=1024, approximate=True),
        tie_embeddings=False,
        start_id=0,
    )
