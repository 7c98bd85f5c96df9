"""Sizes in which small models have learned to tell stories.  Source: Eldan & Li 2023, arXiv:2305.07759."""

from pellucid.model import DecoderConfig


def tinystories_22m() -> DecoderConfig:
    return DecoderConfig(vocab_size=21504, d_model=384, num_layers=8, num_heads=6, max_seq_len=256)
