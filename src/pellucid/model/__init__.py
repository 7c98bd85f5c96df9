"""Token ids → logits. Knows no text, data, loss, optimizer or trainer.

Read in this order: interface → norms → positions → masks → kernels → attention → cache → feedforward → block →
stack → decoder → encoder_decoder → decoding; then, for speed, native → packed.
"""

from typing import Annotated

from pydantic import Field

from pellucid.model.cache import KVCache
from pellucid.model.decoder import DecoderConfig, DecoderLM
from pellucid.model.encoder_decoder import EncoderDecoderConfig, EncoderDecoderLM
from pellucid.model.interface import Head, Hidden, LanguageModel, Recompute

ModelConfig = Annotated[DecoderConfig | EncoderDecoderConfig, Field(discriminator="kind")]
"""What a run's `[model]` table may be."""

Transformer = DecoderLM | EncoderDecoderLM
"""What a ModelConfig builds."""

__all__ = [
    "DecoderConfig",
    "DecoderLM",
    "EncoderDecoderConfig",
    "EncoderDecoderLM",
    "Head",
    "Hidden",
    "KVCache",
    "LanguageModel",
    "ModelConfig",
    "Recompute",
    "Transformer",
]
