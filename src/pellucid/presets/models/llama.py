"""Llama's shape, with the grouped-query attention of its second generation and later, over single bytes.

Source: Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288.
"""

from pellucid.model import DecoderConfig
from pellucid.model.feedforward import SwiGLUConfig
from pellucid.model.norms import RMSNormConfig


def llama_tiny() -> DecoderConfig:
    """804,224 parameters: for tests and demonstrations."""
    return DecoderConfig(
        vocab_size=257,
        d_model=128,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        max_seq_len=256,
        norm=RMSNormConfig(eps=1e-5),
        feed_forward=SwiGLUConfig(d_ff=352),
        tie_embeddings=False,
    )
