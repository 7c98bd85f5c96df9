"""Tokens as short text that is safe to print and to align."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.tokenizers import Tokenizer

SPACE = "␣"
_ESCAPES = {" ": SPACE, "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def token_labels(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, ...]:
    """Each id's text: spaces as ␣, control characters and broken bytes escaped."""
    return tuple(_label(tokenizer, number) for number in ids)


def _label(tokenizer: Tokenizer, number: int) -> str:
    if number >= tokenizer.vocab_size:
        return "(no token)"
    data = tokenizer.decode_bytes([number])
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)
    return "".join(_visible(character) for character in text) or "(no token)"


def _visible(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
