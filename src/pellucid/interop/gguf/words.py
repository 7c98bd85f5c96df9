"""A tokenizer in GGUF's words: tokens, types, merges, and the name of the rule that cuts text.

llama.cpp knows the rule by `tokenizer.ggml.pre` alone: a wrong name gives other ids without a word, so a rule that has
none is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pellucid.errors import CheckpointError, TokenizerError
from pellucid.interop.gguf.rules import RULES, rule_named, rule_of
from pellucid.tokenizers import HuggingFaceTokenizer, Tokenizer
from pellucid.tokenizers.ranks import stand_ins
from pellucid.tokenizers.tokenizer_json import added_token, byte_pairs

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""`tokenizer.ggml.token_type`. Control: cut out of a text where special tokens count; user defined: always."""

Tree = dict[str, Any]
_STAND_INS = {byte: chr(code) for code, byte in stand_ins().items()}
_NEVER = f"{_STAND_INS[0xC0]} {_STAND_INS[0xC1]}"
"""A merge of two bytes that no text has: llama.cpp wants one at least."""


@dataclass(frozen=True)
class Words:
    """The tokenizer's part of a GGUF file."""

    rule: str
    tokens: Sequence[str]
    """By id, in the stand-ins of bytes; special ones as they are."""
    types: Sequence[int]
    merges: Sequence[str]
    end: int | None
    """The id that ends a text, and begins one."""


def words_of(tokenizer: Tokenizer, vocab_size: int) -> Words:
    """A tokenizer's words, with unused ones up to the model's `vocab_size` ids.

    Raises TokenizerError for a tokenizer that llama.cpp cannot be told.
    """
    tree = tokenizer.tokenizer_json()
    added = cast("list[Tree]", tree.get("added_tokens") or [])
    model = cast(Tree, tree["model"])
    _require_byte_level(tokenizer.kind, tree)
    _require_plain(tokenizer, added)
    if tokenizer.end_of_text_id is None:
        raise TokenizerError(
            f"{tokenizer.kind}: has no token that ends a text, and llama.cpp would take id 11 for it; add one by "
            "special_tokens"
        )
    tokens, types = [f"unused {number}" for number in range(vocab_size)], [UNUSED] * vocab_size
    for token, number in cast("dict[str, int]", model["vocab"]).items():
        tokens[number], types[number] = token, UNUSED if token == f"unused {number}" else NORMAL
    for entry in added:
        tokens[entry["id"]], types[entry["id"]] = (
            entry["content"],
            CONTROL if entry["special"] else USER_DEFINED,
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise TokenizerError(
            f"{tokenizer.kind}: two ids are spelt {twice!r}, of which llama.cpp can read but one"
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    spelt = [token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL]
    rule = rule_of(tree.get("pre_tokenizer"), spelt, merges, ignores_merges=bool(model.get("ignore_merges")))
    if rule is None:
        raise TokenizerError(
            f"{tokenizer.kind}: llama.cpp has no name for the rule by which this tokenizer cuts text (of those it has, "
            f"{', '.join(rule.name for rule in RULES)} are written here); under a wrong one it would read other ids, "
            "silently"
        )
    return Words(rule.name, tokens, types, merges or [_NEVER], tokenizer.end_of_text_id)


def _require_byte_level(kind: str, tree: Tree) -> None:
    model = cast(Tree, tree["model"])
    is_byte_level = cast(Tree, tree.get("decoder") or {}).get("type") == "ByteLevel"
    marks = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "unk_token")
    if model["type"] != "BPE" or not is_byte_level or tree.get("normalizer") or any(map(model.get, marks)):
        raise TokenizerError(
            f"{kind}: GGUF has words for byte-level BPE only (gpt2, p50k_base, cl100k_base, byte, char of ASCII, and "
            "what `pellucid tokenizer train` makes); export --to hf, or train with one of these"
        )


def _require_plain(tokenizer: Tokenizer, added: Sequence[Tree]) -> None:
    """The tokenizers library gives added tokens ids of its own where a file's do not follow the vocabulary's."""
    for entry in added:
        named = f"{tokenizer.kind}: the added token {entry['content']!r}"
        if taken := [name for name in ("lstrip", "rstrip", "single_word") if entry.get(name)]:
            raise TokenizerError(f"{named} has {taken[0]}, which GGUF has no word for; export --to hf")
        if tokenizer.decode_bytes([entry["id"]]) != entry["content"].encode():
            raise TokenizerError(
                f"{named} has the id {entry['id']} in tokenizer.json and another one when it is read"
            )


def tokenizer_of(words: Words) -> HuggingFaceTokenizer:
    """The inverse. Raises CheckpointError for a rule that is not known here, and for words that do not fit."""
    rule = rule_named(words.rule)
    if len(set(words.tokens)) < len(words.tokens) or len(words.types) != len(words.tokens):
        raise CheckpointError(
            "tokenizer.ggml.tokens, tokenizer.ggml.token_type: each id needs a token and a type"
        )
    added = [
        {**added_token(token, number), "special": kind == CONTROL}
        for number, (token, kind) in enumerate(zip(words.tokens, words.types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    tree: Tree = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": rule.pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": byte_pairs(
            {token: number for number, token in enumerate(words.tokens)},
            [merge for merge in words.merges if merge != _NEVER],
            ignore_merges=rule.ignores_merges,
        ),
    }
    end = None if words.end is None else words.tokens[words.end]
    names = [entry["content"] for entry in added if entry["special"]]
    return HuggingFaceTokenizer(tree, end_of_text=end if end in names else None)
