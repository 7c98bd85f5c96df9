"""Where the byte-pair ranks of OpenAI's vocabularies come from. Nothing here uses the network.

Ranks map the bytes of a token to its id, which is also its merge priority: of all neighbours in a text
that join to a known token, the pair with the lowest rank is joined first.
"""

from __future__ import annotations

import base64
import hashlib
import lzma
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pellucid.errors import TokenizerError

Ranks = dict[bytes, int]

GPT2_RANKS = 50256
"""256 bytes and 50,000 merges."""
_GPT2_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


class RanksFile(NamedTuple):
    """A ranks file that is not shipped: its name in tiktoken's cache, and its SHA-256.

    tiktoken names a cached file by the SHA-1 of the address it came from.
    """

    cache_name: str
    sha256: str


CL100K_FILE = RanksFile(
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
O200K_FILE = RanksFile(
    "fb374d419588a4632f3f557e76b4b70aebbca790",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)


# GPT-2: rebuilt from the merges shipped with Pellucid -------------------------------------------------


def gpt2_ranks(limit: int = GPT2_RANKS) -> Ranks:
    """GPT-2's ranks, or the first `limit` of them, rebuilt from its list of merges.

    The first 256 ranks are the single bytes in the order of GPT-2's printable stand-ins; merge i, in the
    order in which they were learned, has rank 256 + i. Every token is reached by merges of lower rank
    alone, so the first `limit` ranks are exactly the tokenizer as it was at that point of its training.
    """
    if not 256 <= limit <= GPT2_RANKS:
        raise TokenizerError(f"gpt2: can have 256 to {GPT2_RANKS} ranks, not {limit}")
    byte_of = stand_ins()
    tokens = [bytes([byte]) for byte in byte_of.values()]
    for merge in gpt2_merges(limit):
        tokens.append(merge.replace(" ", "").translate(byte_of).encode("latin-1"))
    return {token: rank for rank, token in enumerate(tokens)}


def gpt2_merges(limit: int = GPT2_RANKS) -> list[str]:
    """The pairs that are merged to ranks 256 … limit - 1, in stand-ins, with a space between the two."""
    _version, *merges = _gpt2_merges().splitlines()
    return merges[: limit - 256]


def p50k_ranks() -> Ranks:
    """GPT-2's ranks, then ids 50257 to 50280 for runs of 2 to 25 spaces (50256 is `<|endoftext|>`)."""
    return gpt2_ranks() | {b" " * count: 50255 + count for count in range(2, 26)}


def stand_ins() -> dict[int, int]:
    """Code point that stands for a byte in GPT-2's merges → that byte, in the order of GPT-2's ids.

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, are U+0100, U+0101, …
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {0x100 + index: byte for index, byte in enumerate(others)}


def _gpt2_merges() -> str:
    packed = resources.files("pellucid.tokenizers") / "vocabularies" / "gpt2_vocab.bpe.xz"
    try:
        data = lzma.decompress(packed.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise TokenizerError(f"{packed}: the merges shipped with Pellucid cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != _GPT2_SHA256:
        raise TokenizerError(
            f"{packed}: the merges shipped with Pellucid are damaged; install Pellucid again"
        )
    return data.decode()


# cl100k and o200k: from a file the user has -----------------------------------------------------------


def read_ranks(kind: str, wanted: RanksFile, file: Path | None = None) -> Ranks:
    """Ranks from the file the user named, else from tiktoken's cache, checked against their SHA-256.

    Raises TokenizerError saying what to do when there is no such file, or when it is another one.
    """
    path = file.expanduser() if file else cached_file(wanted)
    if path is None:
        raise _missing(kind, wanted, "TIKTOKEN_CACHE_DIR is empty, so tiktoken keeps no cache")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _missing(kind, wanted, f"{path}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != wanted.sha256:
        raise TokenizerError(
            f"{path}: damaged, or not the ranks of {kind}: its SHA-256 is {found}, wanted {wanted.sha256}; "
            "name the right file, or fetch it again"
        )
    pairs = (line.split() for line in data.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _missing(kind: str, wanted: RanksFile, reason: str) -> TokenizerError:
    return TokenizerError(
        f"{kind}: its ranks are not on this machine ({reason}). Name a {kind}.tiktoken file by ranks_file "
        "(in a run: data.tokenizer.ranks_file=FILE); or set TIKTOKEN_CACHE_DIR to a directory that has "
        f"{wanted.cache_name}; or, with a network, run: "
        f"python -c \"import tiktoken; tiktoken.get_encoding('{kind}')\""
    )


def cached_file(wanted: RanksFile) -> Path | None:
    """Where tiktoken caches the file, by the environment variables it reads. None: its cache is off."""
    default = Path(tempfile.gettempdir()) / "data-gym-cache"
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", str(default)))
    return Path(folder) / wanted.cache_name if folder else None


def dump_ranks(ranks: Mapping[bytes, int]) -> bytes:
    """Ranks as the bytes of a `.tiktoken` file: one line a token, base64 and rank, in the order of ranks."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ordered)
