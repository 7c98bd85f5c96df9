"""The modern default (RMSNorm, RoPE, SwiGLU, tied head) with GPT-2's vocabulary, in three sizes."""

from pellucid.model import DecoderConfig

GPT2_VOCABULARY = 50257


def sota_16m() -> DecoderConfig:
    """16,079,360 parameters."""
    return DecoderConfig(vocab_size=GPT2_VOCABULARY, d_model=256, num_layers=4, num_heads=4, max_seq_len=512)


def sota_125m() -> DecoderConfig:
    """123,551,232 parameters."""
    return DecoderConfig(
        vocab_size=GPT2_VOCABULARY, d_model=768, num_layers=12, num_heads=12, max_seq_len=1024
    )


def sota_250m() -> DecoderConfig:
    """253,872,128 parameters."""
    return DecoderConfig(
        vocab_size=GPT2_VOCABULARY, d_model=1024, num_layers=16, num_heads=16, max_seq_len=1024
    )
