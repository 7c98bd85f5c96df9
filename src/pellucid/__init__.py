"""Pellucid: small transformer language models, from raw text to a measured model.

Importing this package imports no torch; the names below bring it when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM

__version__ = "0.1.0"

_HOMES = {
    "DecoderConfig": "pellucid.model",
    "DecoderLM": "pellucid.model",
    "EncoderDecoderConfig": "pellucid.model",
    "EncoderDecoderLM": "pellucid.model",
}

__all__ = ["DecoderConfig", "DecoderLM", "EncoderDecoderConfig", "EncoderDecoderLM", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
