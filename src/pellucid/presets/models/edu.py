"""The classic GPT of lessons and books, small enough to train and to look into: GPT-2's parts and vocabulary."""

from pellucid.model import DecoderConfig
from pellucid.presets.models.gpt2 import classic


def edu_6l() -> DecoderConfig:
    """17,735,936 parameters, of which 12,865,792 are the token table."""
    return classic(d_model=256, num_layers=6, num_heads=4, max_seq_len=512)


def edu_4l() -> DecoderConfig:
    """7,291,776 parameters, of which 6,432,896 are the token table."""
    return classic(d_model=128, num_layers=4, num_heads=4, max_seq_len=512)
