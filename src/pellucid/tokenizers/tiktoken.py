"""OpenAI's byte-pair vocabularies, run by the tiktoken library on ranks, patterns and ids given here.

A pattern cuts the text into pieces, and byte pairs are merged inside each piece only. The patterns and
special tokens are those of tiktoken's own encodings (`tiktoken_ext.openai_public`).
Source: Radford et al. 2019, section 2.2 (byte-level BPE); Sennrich et al. 2016, arXiv:1508.07909 (BPE).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pellucid.config import Config
from pellucid.errors import TokenizerError
from pellucid.runtime.files import storage_errors, write_atomic
from pellucid.tokenizers.base import BaseTokenizer, Corpus
from pellucid.tokenizers.ranks import (
    CL100K_FILE,
    GPT2_RANKS,
    O200K_FILE,
    Ranks,
    dump_ranks,
    gpt2_merges,
    gpt2_ranks,
    p50k_ranks,
    read_ranks,
)
from pellucid.tokenizers.special import END_OF_TEXT, AddedSpecialTokens
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN, byte_level

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

_O200K_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_O200K_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}*{_O200K_LOWER}+{_O200K_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}+{_O200K_LOWER}*{_O200K_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


_AS_OTHERS_WRITE_IT = {GPT2_PATTERN: None, CL100K_PATTERN: LLAMA3_PATTERN}
"""In tokenizer.json: tiktoken's `++` is nothing that its readers know. Text that ends in white space is cut
elsewhere (`\\s++$`), which no id shows: no token goes on after a line break."""


# Configs ----------------------------------------------------------------------------------------------


class GPT2Config(Config):
    """GPT-2's 50,257 tokens; shipped with Pellucid."""

    kind: Literal["gpt2"] = "gpt2"
    max_ranks: int | None = Field(default=None, ge=256, le=GPT2_RANKS)
    """Keep only the first ranks (256 bytes, then merges in the order they were learned), for a small model:
    `<|endoftext|>` then is id `max_ranks`, and the vocabulary has `max_ranks` + 1 tokens. None: all."""
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> TiktokenTokenizer:
        ranks = gpt2_ranks(self.max_ranks or GPT2_RANKS)
        return TiktokenTokenizer(
            self.kind,
            ranks,
            GPT2_PATTERN,
            {END_OF_TEXT: len(ranks)},
            self.special_tokens,
            settings={"max_ranks": self.max_ranks} if self.max_ranks else {},
            merges=partial(gpt2_merges, len(ranks)),
        )


class P50kBaseConfig(Config):
    """The 50,281 tokens of the Codex models: GPT-2's and runs of 2 to 25 spaces; shipped with Pellucid."""

    kind: Literal["p50k_base"] = "p50k_base"
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> TiktokenTokenizer:
        return TiktokenTokenizer(
            self.kind, p50k_ranks(), GPT2_PATTERN, {END_OF_TEXT: 50256}, self.special_tokens
        )


class Cl100kBaseConfig(Config):
    """The tokens of GPT-3.5 and GPT-4, ids up to 100,276; the ranks are read from a file the user has."""

    kind: Literal["cl100k_base"] = "cl100k_base"
    ranks_file: Path | None = None
    """A `cl100k_base.tiktoken` file. None: tiktoken's cache."""
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> TiktokenTokenizer:
        """Raises TokenizerError when the ranks are not on this machine or are damaged."""
        return TiktokenTokenizer(
            self.kind,
            read_ranks(self.kind, CL100K_FILE, self.ranks_file),
            CL100K_PATTERN,
            {
                END_OF_TEXT: 100257,
                "<|fim_prefix|>": 100258,
                "<|fim_middle|>": 100259,
                "<|fim_suffix|>": 100260,
                "<|endofprompt|>": 100276,
            },
            self.special_tokens,
            save_ranks=True,
        )


class O200kBaseConfig(Config):
    """The tokens of GPT-4o, ids up to 200,018; the ranks are read from a file the user has."""

    kind: Literal["o200k_base"] = "o200k_base"
    ranks_file: Path | None = None
    """An `o200k_base.tiktoken` file. None: tiktoken's cache."""
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> TiktokenTokenizer:
        """Raises TokenizerError when the ranks are not on this machine or are damaged."""
        return TiktokenTokenizer(
            self.kind,
            read_ranks(self.kind, O200K_FILE, self.ranks_file),
            O200K_PATTERN,
            {END_OF_TEXT: 199999, "<|endofprompt|>": 200018},
            self.special_tokens,
            save_ranks=True,
        )


# The tokenizer ----------------------------------------------------------------------------------------


class TiktokenTokenizer(BaseTokenizer):
    """Byte-pair encoding by the tiktoken library.

    `ranks` maps the bytes of each token to its id, `pattern` cuts text into pieces, `own_special` gives the
    ids of the special tokens. `settings` are the config keys that `save` must write besides `kind` and
    `special_tokens`; with `save_ranks` it writes the ranks too, for a vocabulary that Pellucid does not ship.
    `merges` gives the pairs behind the ranks, where they are known (see `tokenizer_json.byte_level`).
    """

    def __init__(
        self,
        kind: str,
        ranks: Ranks,
        pattern: str,
        own_special: Mapping[str, int],
        special_tokens: Sequence[str] = (),
        *,
        settings: Mapping[str, Any] | None = None,
        save_ranks: bool = False,
        merges: Callable[[], list[str]] | None = None,
    ) -> None:
        from tiktoken import Encoding  # 35 ms, which a command that only reads configs need not pay

        pieces = [b""] * (max(ranks.values()) + 1)
        for token, rank in ranks.items():
            pieces[rank] = token
        super().__init__(kind, pieces, own_special, special_tokens, algorithm=f"bpe {pattern}")
        # BaseTokenizer finds special tokens, alike for every kind. tiktoken is given one, and never told to
        # use it: its search for an empty set of them finds "" at every character, which took twice as long.
        self._encoding = Encoding(
            kind,
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: own_special[END_OF_TEXT]},
        )
        self._ranks = ranks
        self._pattern = pattern
        self._own_special = dict(own_special)
        self._config_settings = dict(settings or {})
        self._save_ranks = save_ranks
        self._merges = merges

    def tokenizer_json(self) -> dict[str, Any]:
        pattern = _AS_OTHERS_WRITE_IT.get(self._pattern, self._pattern)
        merges = None if self._merges is None else self._merges()
        return byte_level(self._ranks, self._own_special, self._added_special, pattern=pattern, merges=merges)

    def save(self, directory: Path) -> None:
        if self._save_ranks:
            with storage_errors(directory):
                Path(directory).mkdir(parents=True, exist_ok=True)
            write_atomic(Path(directory) / self._ranks_name, dump_ranks(self._ranks))
        super().save(directory)

    @property
    def _ranks_name(self) -> str:
        return f"{self.kind}.tiktoken"

    def _settings(self) -> dict[str, Any]:
        return self._config_settings | ({"ranks_file": self._ranks_name} if self._save_ranks else {})

    def _encode_text(self, text: str, at: int) -> NDArray[np.uint32]:
        return self._encode_ordinary(text, at).copy()  # the buffer of tiktoken cannot be written to

    def _encode_texts(
        self, texts: Sequence[str], num_threads: int
    ) -> tuple[NDArray[np.uint32], Iterable[int]]:
        if num_threads <= 1:
            parts = self._encode_each(texts)
        else:
            # tiktoken releases the interpreter lock; a thread takes many texts at once, as most are short.
            step = max(1, len(texts) // (8 * num_threads))
            groups = [texts[start : start + step] for start in range(0, len(texts), step)]
            with ThreadPoolExecutor(num_threads) as pool:
                parts = [part for done in pool.map(self._encode_each, groups) for part in done]
        return np.concatenate([np.empty(0, dtype=np.uint32), *parts]), map(len, parts)

    def _encode_each(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [self._encode_ordinary(text) for text in texts]

    def _encode_ordinary(self, text: str, at: int = 0) -> NDArray[np.uint32]:
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:  # which is a ValueError, and is explained by the caller
            raise
        except ValueError as error:
            blank = max(re.finditer(r"\s+", text), key=lambda run: run.end() - run.start(), default=None)
            longest = (
                f"{blank.end() - blank.start():,} characters at {at + blank.start()}" if blank else "none"
            )
            raise TokenizerError(
                f"{self.kind}: tiktoken cannot cut this text: {error}. It gives up on runs of about a "
                f"million spaces or line breaks; the longest here: {longest}. Shorten it"
            ) from None
