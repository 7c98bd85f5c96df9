"""Logits → ids → text: how an id is chosen, and the way from a prompt to a continuation.

The loop itself is `pellucid.model.decoding`. Read in this order: sampling → engine → text, then beam and speculative.
Importing this package imports no torch; the names below bring it when they are first used, settings and presets not
even then.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.generate.beam import BeamConfig
    from pellucid.generate.drafting import DraftModel, NgramLookup
    from pellucid.generate.engine import Options
    from pellucid.generate.opening import Writer, open_writer
    from pellucid.generate.prefixes import Prefixes
    from pellucid.generate.sampling import PRESETS, SamplingConfig, preset
    from pellucid.generate.text import Generation, generate_text, generate_texts, stream_text

__all__ = [
    "PRESETS",
    "BeamConfig",
    "DraftModel",
    "Generation",
    "NgramLookup",
    "Options",
    "Prefixes",
    "SamplingConfig",
    "Writer",
    "generate_text",
    "generate_texts",
    "open_writer",
    "preset",
    "stream_text",
]

_HOMES = {
    "BeamConfig": "beam",
    "DraftModel": "drafting",
    "NgramLookup": "drafting",
    "Options": "engine",
    "Writer": "opening",
    "open_writer": "opening",
    "Prefixes": "prefixes",
    "PRESETS": "sampling",
    "SamplingConfig": "sampling",
    "preset": "sampling",
    "Generation": "text",
    "generate_text": "text",
    "generate_texts": "text",
    "stream_text": "text",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
