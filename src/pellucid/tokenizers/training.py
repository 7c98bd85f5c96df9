"""A vocabulary of one's own: byte-level BPE, learned by the `tokenizers` library from any texts.

Source: Sennrich et al. 2016, arXiv:1508.07909 (BPE); Radford et al. 2019, section 2.2 (of bytes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from pellucid.errors import TokenizerError
from pellucid.runtime.extras import require
from pellucid.tokenizers.ranks import stand_ins
from pellucid.tokenizers.special import END_OF_TEXT, number
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN, QWEN2_PATTERN, byte_level

PATTERNS: dict[str, str | None] = {"gpt2": None, "cl100k": LLAMA3_PATTERN, "qwen2": QWEN2_PATTERN}
"""How text is cut before pairs are counted; three that llama.cpp and the fast encoders know. cl100k's takes
numbers in threes and joins a mark to the word after it; qwen2's takes each digit alone."""


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, pattern: str = "gpt2", special_tokens: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of a `tokenizer.json` learned from texts, which are read once, in bounded memory.

    Ids: the 256 bytes in GPT-2's order, the merges as they were learned, `<|endoftext|>`, `special_tokens`;
    `vocab_size` counts them all. Equal texts give equal ids, whatever their order or the number of threads.
    The vocabulary is smaller than asked for where no pair is left that comes twice.
    Raises TokenizerError for a vocabulary too small for the bytes, an unknown pattern, and texts without any
    character.
    """
    if pattern not in PATTERNS:
        raise TokenizerError(f"there is no pattern {pattern!r} (patterns: {', '.join(PATTERNS)})")
    number({END_OF_TEXT: 0}, special_tokens, first_id=1)
    num_fixed = 257 + len(special_tokens)
    if vocab_size < num_fixed:
        raise TokenizerError(
            f"a vocabulary of {vocab_size:,} is too small: 256 bytes, {END_OF_TEXT} and {len(special_tokens)} more "
            f"special tokens are {num_fixed}; the merges come on top"
        )
    ranks = {bytes([byte]): rank for rank, byte in enumerate(stand_ins().values())}
    byte_of = {chr(code): byte for code, byte in stand_ins().items()}
    for first, second in _learn(texts, vocab_size - num_fixed, pattern):
        ranks.setdefault(bytes(byte_of[character] for character in first + second), len(ranks))
    return byte_level(ranks, {END_OF_TEXT: len(ranks)}, special_tokens, pattern=PATTERNS[pattern])


def _learn(texts: Iterable[str], num_merges: int, pattern: str) -> Iterable[tuple[str, str]]:
    tokenizers = require("tokenizers", extra="data", purpose="training a tokenizer")
    empty = byte_level({bytes([byte]): byte for byte in range(256)}, {}, (), pattern=PATTERNS[pattern])
    learner = tokenizers.Tokenizer.from_str(json.dumps(empty))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + num_merges,
        min_frequency=2,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = 0

    def counted() -> Generator[str]:
        nonlocal seen
        for text in texts:
            text.encode()  # half a surrogate pair, which the library would not explain
            seen += len(text)
            yield text

    with _all_cores():
        try:
            learner.train_from_iterator(counted(), trainer)
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"a text has {error.object[error.start]!r}, half of a surrogate pair, which is no character"
            ) from None
    if not seen:
        raise TokenizerError("the texts are empty; there is nothing to learn from")
    return [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]


@contextmanager
def _all_cores() -> Generator[None]:
    """The library counts on all cores, for as long as it trains."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = before or "true"
    try:
        yield
    finally:
        os.environ[name] = before or "false"
