"""Depths and widths in which small models have learned to tell stories, from modern parts.

The names are those of the models with the same depth and width that were published with Eldan & Li 2023,
arXiv:2305.07759; those have GPT-Neo's parts, 16 heads whatever the width, and other vocabularies. All sizes
here have the same 21,504 ids, so that one prepared directory serves them all.
"""

from pellucid.model import DecoderConfig


def tinystories_1m() -> DecoderConfig:
    """1,803,328 parameters, of which 1,376,256 are the token table."""
    return _stories(d_model=64, num_layers=8, num_heads=4)


def tinystories_8m() -> DecoderConfig:
    """11,931,904 parameters, of which 5,505,024 are the token table."""
    return _stories(d_model=256, num_layers=8, num_heads=4)


def tinystories_22m() -> DecoderConfig:
    """22,419,840 parameters, of which 8,257,536 are the token table; between the published sizes."""
    return _stories(d_model=384, num_layers=8, num_heads=6)


def tinystories_33m() -> DecoderConfig:
    """44,833,536 parameters, of which 16,515,072 are the token table."""
    return _stories(d_model=768, num_layers=4, num_heads=12)


def _stories(*, d_model: int, num_layers: int, num_heads: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=21504, d_model=d_model, num_layers=num_layers, num_heads=num_heads, max_seq_len=256
    )
