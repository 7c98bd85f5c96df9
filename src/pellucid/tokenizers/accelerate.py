"""A faster encoder in the tokenizer's place, if it is installed and gives the same ids.

    encoder = fastest_encoder(tokenizer, sample)        # sample: some of the texts to come
    ids, offsets = encoder.encode_batch(texts)

fastokens is a byte-level BPE in Rust, about nine times as fast as tiktoken on unseen text. It is used only
where it has proved equal to the tokenizer, on text made to break it and on the sample; whatever it cannot do,
the tokenizer does. It is slow to start (0.3 to 1.3 s): it pays from some 10 MB of text on.
Why this library, and how it was tried: docs/decisions/0007-fast-encoders.md.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MissingLibraryError, TokenizerError
from pellucid.runtime.extras import require
from pellucid.tokenizers.base import Tokenizer
from pellucid.tokenizers.huggingface import HuggingFaceTokenizer
from pellucid.tokenizers.ranks import dump_ranks
from pellucid.tokenizers.tiktoken import CL100K_PATTERN, O200K_PATTERN, TiktokenTokenizer
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN

LIBRARY = "fastokens"
SAMPLE_CHARACTERS = 1 << 20
"""How much of a sample is compared: the tokenizer needs about 0.06 s for it."""

_THREADS_VARIABLE = "FASTOKENS_BPE_THREADS"
_READ_AS_RANKS = {CL100K_PATTERN: LLAMA3_PATTERN, O200K_PATTERN: O200K_PATTERN}
"""Patterns that fastokens knows beside a ranks file, which loads in a quarter of the time of a tokenizer.json."""

Encoded = tuple[NDArray[np.uint32], NDArray[np.int64]]


class EncodeBatch(Protocol):
    """`Tokenizer.encode_batch`. The arrays may be read-only."""

    def __call__(self, texts: Sequence[str], *, num_threads: int = 1) -> Encoded: ...


@dataclass(frozen=True)
class Encoder:
    """What encodes, and why it is that."""

    name: str
    """The library that encodes: fastokens, tiktoken, tokenizers, numpy."""
    encode_batch: EncodeBatch
    """The same ids as `Tokenizer.encode_batch`, and the same errors for text that is not Unicode."""
    note: str
    """One line for people."""
    is_accelerated: bool = False
    """Whether it is another one than the tokenizer's own, which has proved equal."""


def fastest_encoder(tokenizer: Tokenizer, sample: Sequence[str] = ()) -> Encoder:
    """The fastest encoder known to give this tokenizer's ids.

    `sample` are texts like those to come; the first `SAMPLE_CHARACTERS` of them are compared, besides built-in
    ones. Byte and char tokenizers are numpy already, and encode themselves. Raises nothing: a library that is
    missing, cannot read the vocabulary or gives other ids is not used, and the note says so.
    """
    name = _library_of(tokenizer)
    own = Encoder(name, tokenizer.encode_batch, f"{name}: as fast as it gets for {tokenizer.kind}")

    def without(reason: str) -> Encoder:
        return Encoder(name, tokenizer.encode_batch, f"{name}: {reason}")

    if not isinstance(tokenizer, (TiktokenTokenizer, HuggingFaceTokenizer)):
        return own
    if isinstance(tokenizer, HuggingFaceTokenizer) and (reason := _unfit(tokenizer.tokenizer_json())):
        return without(f"{reason}, which {LIBRARY} is not asked to do")
    try:
        started = _start(tokenizer)
        other = started.unequal or _first_unequal([*_limited(sample)], started.fast.encode, tokenizer)
    except MissingLibraryError:
        return without(
            f"{LIBRARY} is not installed; pip install 'pellucid[data]' makes this about 9 times faster"
        )
    except BaseException as error:
        if not _is_fault(error):
            raise
        return without(f"{LIBRARY} cannot encode as it does ({_brief(error)})")
    if other is not None:
        return without(f"{LIBRARY} gave other ids for {_shown(other)}")
    compared = started.compared + len(sample)
    note = f"{LIBRARY} {metadata.version(LIBRARY)}, equal to {name} on {compared:,} texts"
    return Encoder(LIBRARY, started.fast.encode_batch, note, is_accelerated=True)


def start_early(tokenizer: Tokenizer) -> None:
    """Let a thread load and prove the faster encoder that `fastest_encoder` will want, while others do their work."""
    if isinstance(tokenizer, TiktokenTokenizer):
        thread = threading.Thread(target=_started_or_not, args=(tokenizer,), daemon=True)
        thread.start()


@dataclass(frozen=True)
class _Started:
    """A loaded accelerator, and how it did on the built-in texts."""

    fast: _Fastokens
    compared: int
    unequal: str | None


_STARTED: dict[str, _Started] = {}
"""By the tokenizer's fingerprint: what was started in this process, which takes a third of a second each."""
_STARTING = threading.Lock()


def _start(tokenizer: TiktokenTokenizer | HuggingFaceTokenizer) -> _Started:
    """Load and prove the accelerator, once a process. Raises MissingLibraryError, and whatever fastokens raises."""
    with _STARTING:
        if tokenizer.fingerprint not in _STARTED:
            library = require(LIBRARY, extra="data", purpose="encoding faster")
            fast = _Fastokens(library, tokenizer)
            texts = [*_hard_texts(_named_strings(tokenizer))]
            unequal = _first_unequal(texts, fast.encode, tokenizer)
            _STARTED[tokenizer.fingerprint] = _Started(fast, len(texts), unequal)
        return _STARTED[tokenizer.fingerprint]


def _started_or_not(tokenizer: TiktokenTokenizer) -> None:
    with suppress(BaseException):  # who wants it meets the same error
        _start(tokenizer)


# The accelerator --------------------------------------------------------------------------------------


class _Fastokens:
    """A tokenizer's ids from fastokens, and from the tokenizer where fastokens fails.

    Many threads may call it at once: it releases the interpreter lock. Its caches stay under 100 MB a thread.
    """

    def __init__(self, library: Any, tokenizer: TiktokenTokenizer | HuggingFaceTokenizer) -> None:
        # Read when fastokens first encodes. Its own threads cannot be counted per call, so it gets none.
        os.environ.setdefault(_THREADS_VARIABLE, "1")
        self._tokenizer = tokenizer
        self._library: Any = _load(library.Tokenizer, tokenizer)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Ids and offsets. Raises whatever fastokens raises."""
        data, ends = self._library.encode_batch_flat(texts, split_special_tokens=True)
        offsets = np.frombuffer(ends, dtype="<u8").astype(np.int64)
        ids = np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False)
        if len(offsets) != len(texts) + 1 or offsets[-1] != len(ids):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts, and {len(offsets)} offsets")
        return ids, offsets

    def encode_batch(self, texts: Sequence[str], *, num_threads: int = 1) -> Encoded:
        try:
            if num_threads <= 1 or len(texts) < 2:
                return self.encode(texts)
            step = max(1, len(texts) // (8 * num_threads))
            groups = [texts[start : start + step] for start in range(0, len(texts), step)]
            with ThreadPoolExecutor(num_threads) as pool:
                parts = list(pool.map(self.encode, groups))
        except BaseException as error:
            if not _is_fault(error):
                raise
            return self._tokenizer.encode_batch(texts, num_threads=num_threads)
        lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([[0], np.cumsum(lengths)])


def _load(library: Any, tokenizer: TiktokenTokenizer | HuggingFaceTokenizer) -> Any:
    """The library's tokenizer. With a ranks file it needs no merges, which take longer to find than to use."""
    if isinstance(tokenizer, TiktokenTokenizer) and (pattern := _READ_AS_RANKS.get(tokenizer._pattern)):
        with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
            file = Path(folder) / "ranks.tiktoken"
            file.write_bytes(dump_ranks(tokenizer._ranks))
            return library.from_tiktoken(str(file), pattern=pattern, special_tokens={})
    text = tokenizer._tokenizer_json_text
    if text is None:
        raise TokenizerError("its special tokens cannot be written as tokenizer.json")
    return library.from_json_str(text)


def _is_fault(error: BaseException) -> bool:
    """Whether the library failed: an exception, or a panic of Rust, which is none to Python."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _unfit(tree: dict[str, Any]) -> str | None:
    """What a tokenizer.json holds besides byte-level BPE of the text as it is; None: nothing."""
    model = tree["model"]
    if model.get("type", "BPE") != "BPE":
        return f"a model of type {model['type']}"
    if (
        model.get("byte_fallback")
        or model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
    ):
        return "BPE of characters"
    if tree.get("normalizer"):
        return f"a normalizer ({tree['normalizer'].get('type')})"
    steps = tree.get("pre_tokenizer") or {}
    types = [step.get("type") for step in steps.get("pretokenizers", [steps])]
    if types[-1:] != ["ByteLevel"] or set(types) - {"Split", "Digits", "ByteLevel"}:
        return f"a pre-tokenizer of {', '.join(map(str, types))}"
    return None


# The proof --------------------------------------------------------------------------------------------


def _first_unequal(
    texts: Sequence[str], encode: Callable[[Sequence[str]], Encoded], tokenizer: Tokenizer
) -> str | None:
    """The first text whose ids differ; None: there is none. What the tokenizer refuses is left out."""
    try:
        wanted, ends = tokenizer.encode_batch(texts)
    except TokenizerError:
        texts = [text for text in texts if _is_encodable(text, tokenizer)]
        wanted, ends = tokenizer.encode_batch(texts)
    ids, offsets = encode(texts)
    if np.array_equal(ids, wanted) and np.array_equal(offsets, ends):
        return None
    return next(
        text
        for at, text in enumerate(texts)
        if not np.array_equal(ids[offsets[at] : offsets[at + 1]], wanted[ends[at] : ends[at + 1]])
    )


def _is_encodable(text: str, tokenizer: Tokenizer) -> bool:
    try:
        tokenizer.encode(text)
    except TokenizerError:
        return False
    return True


def _hard_texts(named: Sequence[str]) -> Iterator[str]:
    """Text on which encoders have been seen to differ: about half a megabyte, the same in every process."""
    yield from ("", "", " ", "\n", "\x00")
    for start in range(0, 0x20000, 512):  # the first two planes: all scripts, emoji, what is unassigned
        characters = [chr(code) for code in range(start, start + 512) if not 0xD800 <= code <= 0xDFFF]
        if any(character.isprintable() or character.isspace() for character in characters):
            yield "".join(f"{character}a" for character in characters)
    first = [*map(chr, range(0x180)), *"\u1680\u2000\u2028\u202f\u3000\ufeff\ufffd\U0010ffff"]
    for before, after in ("  ", "a ", " B", "1.", "\n\n", "'s"):
        yield from (before + character + after for character in first)
    for quote, word in product("'’", _ENDINGS.split()):
        for before, after in product(("I", " ", "É", ""), ("", "y", " ")):
            yield f"{before}{quote}{word}{after}"
    for run in (*_BLANKS, *"aA1.=é中\u0301🙂", "Aa", "_/"):
        for count in (2, 3, 4, 7, 16, 25, 33, 100, 257, 1025):
            yield from (run * count, f"{run * count}x", f"x{run * count} y", f"{run * count}\n")
    yield from (run * 20_000 for run in (" ", "\n", "a", "1", "."))
    for token in named:
        yield from (token, token[:-1], token.upper(), f"a{token}b", f" {token} \n{token}{token}'s")
    rng, pieces = random.Random(0), [*_WORDS.split(" "), *_BLANKS, " ", *named]
    yield from ("".join(rng.choices(pieces, k=rng.randint(1, 40))) for _ in range(3000))
    yield from (rng.randbytes(rng.randint(1, 60)).decode(errors="replace") for _ in range(1000))


_BLANKS = (" ", "\n", "\r\n", "\r", "\t", " \n", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x1c")
_ENDINGS = "s t re ve m ll d S T RE Ve M LL D ſ İ K rſ x"
_WORDS = (
    "a B the Hello iPhone HTTPServer s ' ’ 's 'LL é e\u0301 ß ſ İ ǅ ʰ ª ᾈ 中 文字 한글 क्ष ไทย אב ع Ġ Ċ ▁ "
    "1 22 2024 ½ ² Ⅷ ٣ . , ... ?! -- ___ / // ( \\ <| |> <0x0A> [MASK] <s> 🙂 👩‍👩‍👧 🇩🇪 \u200d \ufeff \ufffd "
    "\u0378 \ue000 \U0010ffff \x00 \x7f"
)


def _named_strings(tokenizer: TiktokenTokenizer | HuggingFaceTokenizer) -> list[str]:
    """What this tokenizer or others take for one token where they are told to: its first thousand, and a few."""
    named = list(tokenizer.special_tokens)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        named += [token["content"] for token in tokenizer.tokenizer_json().get("added_tokens", [])]
    return sorted({"<|endoftext|>", "<|im_start|>", "<|fim_prefix|>", *named[:1000]})


def _limited(sample: Sequence[str]) -> Iterator[str]:
    left = SAMPLE_CHARACTERS
    for text in sample:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


# Words ------------------------------------------------------------------------------------------------


def _library_of(tokenizer: Tokenizer) -> str:
    if isinstance(tokenizer, TiktokenTokenizer):
        return "tiktoken"
    return "tokenizers" if isinstance(tokenizer, HuggingFaceTokenizer) else "numpy"


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 60 else f"a text of {len(text):,} characters: {text[:60]!a}…"
