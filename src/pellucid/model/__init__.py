"""Token ids → logits. Knows no text, data, loss, optimizer or trainer.

Read in this order: interface → norms → positions → attention → cache → feedforward → block → decoder → decoding.
"""

from pellucid.model.cache import KVCache
from pellucid.model.decoder import DecoderConfig, DecoderLM
from pellucid.model.interface import Hidden, LanguageModel

ModelConfig = DecoderConfig
"""What a run's `[model]` table may be."""

__all__ = ["DecoderConfig", "DecoderLM", "Hidden", "KVCache", "LanguageModel", "ModelConfig"]
