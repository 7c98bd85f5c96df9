"""str ⇄ ids. A tokenizer knows text and ids, and nothing of data or models. No torch.

    tokenizer = pellucid.tokenizers.build("gpt2")
    tokenizer.encode("hello world")                     # array([31373, 995], dtype=uint32)

`TokenizerConfig` is the union of all kinds, and the only list of them: a new kind is its file and one
word there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from pellucid.config import Config, from_tree, members
from pellucid.errors import ConfigError, TokenizerError
from pellucid.tokenizers import stored
from pellucid.tokenizers.base import Corpus, Ids, Tokenizer
from pellucid.tokenizers.byte import ByteConfig, ByteTokenizer
from pellucid.tokenizers.char import CharConfig, CharTokenizer
from pellucid.tokenizers.huggingface import HuggingFaceConfig, HuggingFaceTokenizer
from pellucid.tokenizers.special import END_OF_TEXT
from pellucid.tokenizers.tiktoken import (
    Cl100kBaseConfig,
    GPT2Config,
    O200kBaseConfig,
    P50kBaseConfig,
    TiktokenTokenizer,
)

__all__ = [
    "END_OF_TEXT",
    "ByteConfig",
    "ByteTokenizer",
    "CharConfig",
    "CharTokenizer",
    "Cl100kBaseConfig",
    "Corpus",
    "GPT2Config",
    "HuggingFaceConfig",
    "HuggingFaceTokenizer",
    "Ids",
    "O200kBaseConfig",
    "P50kBaseConfig",
    "TiktokenTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "build",
    "load",
]


_ByKind = Annotated[
    ByteConfig
    | CharConfig
    | GPT2Config
    | P50kBaseConfig
    | Cl100kBaseConfig
    | O200kBaseConfig
    | HuggingFaceConfig,
    Field(discriminator="kind"),
]


def _kind_alone(value: Any) -> Any:
    tree: Any = {"kind": value} if isinstance(value, str) else value
    if isinstance(tree, Mapping):
        named = cast(Mapping[str, Any], tree)
        kind = named.get("kind")
        if isinstance(kind, str) and kind not in members(_ByKind) and _is_place(kind):
            return {**named, "kind": "huggingface", "path": kind}
    return tree


def _is_place(word: str) -> bool:
    """Whether a word that is no kind is meant as a path or as the name of a repository of the hub."""
    return bool({"/", os.sep} & set(word)) or word == stored.TOKENIZER_JSON or Path(word).exists()


TokenizerConfig = Annotated[_ByKind, BeforeValidator(_kind_alone, json_schema_input_type=_ByKind | str)]
"""Any tokenizer's config, told apart by `kind`. A bare string is a kind with its defaults, `"gpt2"`, or else
the path or the hub name of a tokenizer.json: `"data/mine"`, `"owner/name"`."""


class _Choice(Config):
    """Gives messages a place to start from: `tokenizer.kind: there is no kind …`."""

    tokenizer: TokenizerConfig


def build(tokenizer: str | Mapping[str, Any] | TokenizerConfig, corpus: Corpus | None = None) -> Tokenizer:
    """A tokenizer from its kind (`"gpt2"`), a mapping (`{"kind": "gpt2", "max_ranks": 4096}`) or a config.

    A string that is no kind may be the path or the hub name of a tokenizer.json; see `HuggingFaceConfig`.

    `corpus` gives the texts that a char tokenizer takes its characters from: `lambda: [text]`.
    Raises TokenizerError for an unknown kind or key, and for what the tokenizer itself cannot do.
    """
    try:
        config = from_tree(_Choice, {"tokenizer": tokenizer}).tokenizer
    except ConfigError as error:
        kind = tokenizer.get("kind") if isinstance(tokenizer, Mapping) else tokenizer
        is_known = not isinstance(kind, str) or kind in members(_ByKind)
        places = "" if is_known else "; or name a path that exists, or OWNER/NAME of the hub"
        raise TokenizerError(f"{error}{places}") from None
    return config.build(corpus)


def load(directory: Path) -> Tokenizer:
    """The tokenizer saved in a directory by `Tokenizer.save`, checked to give the same ids as it did.

    Raises TokenizerError when a file is missing, broken or altered.
    """
    directory = Path(directory)
    saved = stored.read(directory)
    config = dict(saved.config)
    for key in ("ranks_file", "path"):
        if isinstance(config.get(key), str):
            config[key] = str(directory / cast(str, config[key]))
    try:
        tokenizer = build(config)
    except TokenizerError as error:
        raise TokenizerError(f"{directory / stored.FILE_NAME}: {error}") from None
    if tokenizer.fingerprint != saved.fingerprint:
        raise TokenizerError(
            f"{directory / stored.FILE_NAME}: altered, or written by another version of Pellucid: the "
            f"{tokenizer.kind} tokenizer it describes has the fingerprint {tokenizer.fingerprint}, and the "
            f"file says {saved.fingerprint}; its ids could differ from those the model learned"
        )
    return tokenizer
