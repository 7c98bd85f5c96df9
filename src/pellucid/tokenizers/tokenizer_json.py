"""`tokenizer.json`, the format of Hugging Face's `tokenizers`, which transformers, llama.cpp and others read.

A `byte_level` file cuts text by a regular expression, writes each byte as a printable stand-in (a space is
`Ġ`) and merges pairs of them; a `character_level` file merges nothing. The library gives the ids that ours
gives, for any text: for ordinary text with `encode_special_tokens = True`, else as with `allow_special`.
No library is needed here. The library numbers added tokens itself, after the vocabulary; so a tokenizer's
own special tokens stand in the vocabulary too, and an id that names nothing has a name that no text spells.
Source: the merges are found from ranks as by transformers' TikTokenConverter, without the pairs never met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pellucid.errors import TokenizerError
from pellucid.tokenizers.ranks import Ranks, stand_ins

if TYPE_CHECKING:
    from pellucid.tokenizers.base import Tokenizer

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""cl100k's rule as Llama 3's file has it: readers know a pattern by its letters, so they matter."""

QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
"""Like cl100k's, with each digit alone."""

_NEVER = 1 << 62


def to_tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a tokenizer's `tokenizer.json`.

    Raises TokenizerError for an added special token that is spelt as an ordinary token is, which the format
    cannot tell apart.
    """
    return tokenizer.tokenizer_json()


def byte_level(
    ranks: Ranks,
    own_special: Mapping[str, int],
    added: Sequence[str],
    *,
    pattern: str | None = None,
    merges: list[str] | None = None,
) -> dict[str, Any]:
    """Byte-pair encoding of bytes.

    `ranks` gives the bytes of each token and its id, which is also its merge priority. `pattern` cuts text
    into pieces; None stands for GPT-2's. `merges` are the pairs, in stand-ins with a space between the two, where
    they are known: to find them takes a second for 100,000. A piece that is a token is taken whole where merges do
    not reach it.
    """
    spell = {byte: chr(code) for code, byte in stand_ins().items()}
    names = {token: "".join(map(spell.__getitem__, token)) for token in ranks}
    if merges is None:
        merges = [f"{names[first]} {names[second]}" for first, second in merges_of(ranks)]
    unreached = len(merges) < sum(len(token) > 1 for token in ranks)
    vocabulary = _vocabulary({names[token]: rank for token, rank in ranks.items()}, own_special)
    cut = _splits(pattern) if pattern else _byte_level(use_regex=True)
    return _file(vocabulary, merges, own_special, added, cut, _byte_level(), ignore_merges=unreached)


def character_level(alphabet: str, own_special: Mapping[str, int], added: Sequence[str]) -> dict[str, Any]:
    """One id a character, as BPE without merges. A character outside the alphabet is left out, silently.

    An alphabet of ASCII is written as bytes, which llama.cpp knows.
    """
    if alphabet.isascii():
        return byte_level({c.encode(): index for index, c in enumerate(alphabet)}, own_special, added)
    vocabulary = _vocabulary({c: index for index, c in enumerate(alphabet)}, own_special)
    return _file(vocabulary, [], own_special, added, None, {"type": "Fuse"})


def merges_of(ranks: Ranks) -> Iterator[tuple[bytes, bytes]]:
    """The pair that is merged to each token of several bytes, in the order of ranks.

    A token has one such pair at most: two neighbours were merged from the bytes of that token alone, in the
    order in which they are when it stands alone. A token that its bytes do not reach has none.
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1 and (pair := _last_pair(token, ranks)):
            yield pair


def _last_pair(token: bytes, ranks: Ranks) -> tuple[bytes, bytes] | None:
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(first + second, _NEVER) for first, second in pairwise(parts)]
        lowest = min(joined)
        if lowest == _NEVER:
            return None
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _vocabulary(tokens: dict[str, int], own_special: Mapping[str, int]) -> dict[str, int]:
    """Every id from 0 on has a name. No byte's stand-in is a space, so the name of an unused id is never met."""
    named = {**tokens, **own_special}
    used = set(named.values())
    named |= {f"unused {number}": number for number in range(max(used)) if number not in used}
    return dict(sorted(named.items(), key=lambda item: item[1]))


def _file(
    vocabulary: dict[str, int],
    merges: list[str],
    own_special: Mapping[str, int],
    added: Sequence[str],
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any],
    *,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    if taken := [token for token in added if token in vocabulary]:
        raise TokenizerError(
            f"the special token {taken[0]!r} is spelt as an ordinary token is, which tokenizer.json cannot tell "
            "apart; name it otherwise, for example <|…|>"
        )
    special = {**own_special, **{token: len(vocabulary) + index for index, token in enumerate(added)}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(token, number) for token, number in sorted(special.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": byte_pairs(vocabulary, merges, ignore_merges=ignore_merges),
    }


def byte_pairs(vocabulary: dict[str, int], merges: list[str], *, ignore_merges: bool) -> dict[str, Any]:
    """The `model` of a byte-pair encoding that knows every byte. ignore_merges: a whole word in the vocabulary is one
    token, whatever its merges.
    """
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": vocabulary,
        "merges": merges,
    }


def added_token(content: str, number: int) -> dict[str, Any]:
    """A special token of a file."""
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **off, "special": True}


def _byte_level(*, use_regex: bool = True) -> dict[str, Any]:
    """Bytes to stand-ins and back; with `use_regex`, text is cut by GPT-2's pattern before."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _splits(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}
