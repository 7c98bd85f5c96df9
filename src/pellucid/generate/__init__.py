"""Logits → ids → text: how an id is chosen, and the way from a prompt to a continuation.

The loop itself is `pellucid.model.decoding.decode`. Read in this order: sampling → text.
"""

from pellucid.generate.sampling import PRESETS, SamplingConfig, preset
from pellucid.generate.text import Generation, generate_text, stream_text

__all__ = ["PRESETS", "Generation", "SamplingConfig", "generate_text", "preset", "stream_text"]
