"""Prompt text → generated text, whole or in pieces as it comes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.errors import TokenizerError
from pellucid.generate.sampling import SamplingConfig
from pellucid.model import decoding
from pellucid.model.interface import LanguageModel
from pellucid.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Generation:
    """A finished continuation of a prompt: `prompt + text` is the whole text. From an encoder-decoder, an answer."""

    prompt: str
    text: str
    """The continuation alone, without the end-of-text token."""
    prompt_tokens: int
    """Ids of the prompt, or 1 for the id that an empty prompt starts from."""
    prompt_tokens_read: int
    """How many of them, the newest, the model has read: fewer where the prompt is longer than the context."""
    new_tokens: int
    """Ids chosen, end of text included."""
    stop_reason: Literal["end of text", "length"]
    tokens_per_second: float
    """New ids by the seconds in the model, reading the prompt included, the caller's own time not."""


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    on_text: Callable[[str], object] | None = None,
    cache_dtype: torch.dtype | None = None,
) -> Generation:
    """Continue the prompt as `stream_text` does; `on_text` is handed each piece as it comes."""
    pieces = stream_text(model, tokenizer, prompt, sampling, cache_dtype=cache_dtype)
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return end.value
        if on_text is not None:
            on_text(piece)


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    cache_dtype: torch.dtype | None = None,
) -> Generator[str, None, Generation]:
    """Yield the continuation (from an encoder-decoder: the answer) in pieces of whole characters.

    The generator's return value is the Generation.

    Text ends at the tokenizer's end-of-text id or after `sampling.max_new_tokens` ids; the pieces joined are
    `Generation.text`. A character whose bytes come as several ids is held back until it is whole; bytes that
    are no UTF-8 become U+FFFD. Special tokens in the prompt are plain text, but in an
    encoder's source, which may hold sentinels (`<extra_id_0>`). An empty prompt starts from the
    end-of-text id, after which a model has learned that a text begins, or from a newline where the tokenizer
    has none. Of a prompt longer than the context the newest part is read (see `decoding.decode`), and the
    Generation says how much. Dropout is off until the generator ends.

    `sampling` is plain drawing where it is left out; `cache_dtype` is the key/value cache's, by default the
    weights'. Raises TokenizerError when the tokenizer has ids that the model has not.
    """
    sampling = sampling or SamplingConfig()
    if tokenizer.vocab_size > model.vocab_size:
        raise TokenizerError(
            f"the tokenizer ({tokenizer.kind}) has {tokenizer.vocab_size} ids and the model only "
            f"{model.vocab_size}; use the tokenizer that the model was trained with"
        )
    device = model.device
    allow_special = not model.continues_prompt
    prompt_ids = torch.as_tensor(start_ids(tokenizer, prompt, allow_special).astype(np.int64), device=device)[
        None
    ]
    pick = sampling.build(device, vocab_size=tokenizer.vocab_size)
    end_of_text = tokenizer.end_of_text_id
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    pieces: list[str] = []
    new_tokens, ended, seconds = 0, False, 0.0
    resumed = perf_counter()
    for new in decoding.decode(
        model, prompt_ids, sampling.max_new_tokens, pick, stop_id=end_of_text, dtype=cache_dtype
    ):
        token = int(new)
        seconds += perf_counter() - resumed
        new_tokens += 1
        ended = token == end_of_text
        piece = utf8.decode(b"" if ended else tokenizer.decode_bytes([token]))
        if piece:
            pieces.append(piece)
            yield piece
        resumed = perf_counter()
    if rest := utf8.decode(b"", final=True):
        pieces.append(rest)
        yield rest

    return Generation(
        prompt=prompt,
        text="".join(pieces),
        prompt_tokens=prompt_ids.shape[1],
        prompt_tokens_read=decoding.tokens_read(prompt_ids.shape[1], model.max_seq_len),
        new_tokens=new_tokens,
        stop_reason="end of text" if ended else "length",
        tokens_per_second=new_tokens / seconds,
    )


def start_ids(tokenizer: Tokenizer, prompt: str, allow_special: bool) -> NDArray[np.uint32]:
    """The ids to continue: the prompt's, or for an empty prompt those that a text begins after."""
    if prompt:
        return tokenizer.encode(prompt, allow_special=allow_special)
    if tokenizer.end_of_text_id is not None:
        return np.array([tokenizer.end_of_text_id], dtype=np.uint32)
    try:
        return tokenizer.encode("\n")
    except TokenizerError as error:
        raise TokenizerError(
            f"the prompt is empty, and the tokenizer ({tokenizer.kind}) has neither an end-of-text token nor "
            f"a newline to start from ({error}); give a prompt"
        ) from None


def printable(text: str) -> str:
    """The text with every control character but newline and tab as U+FFFD: safe to show on a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
