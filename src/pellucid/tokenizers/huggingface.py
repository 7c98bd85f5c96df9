"""Any tokenizer of the Hugging Face ecosystem, by its `tokenizer.json`, run by the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pellucid.config import Config, nearest
from pellucid.errors import TokenizerError
from pellucid.runtime.extras import require
from pellucid.tokenizers.base import BaseTokenizer, Corpus
from pellucid.tokenizers.ranks import stand_ins
from pellucid.tokenizers.special import END_OF_TEXT, AddedSpecialTokens
from pellucid.tokenizers.stored import TOKENIZER_JSON
from pellucid.tokenizers.tiktoken import O200K_PATTERN
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN, QWEN2_PATTERN, added_token

ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>")
"""What others call their end of text; the first that a file has as a special token."""
_KNOWN_PATTERNS = (LLAMA3_PATTERN, QWEN2_PATTERN, O200K_PATTERN)
_MOST_UNUSED_IDS = 10_000_000
"""Each costs memory, and a damaged file may have 2³² of them."""
_SETTINGS = "tokenizer_config.json"
_HUB_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?<!\.json)")

Tree = dict[str, Any]


# Config -----------------------------------------------------------------------------------------------


class HuggingFaceConfig(Config):
    """A `tokenizer.json`: its path, the directory it is in, or the name of a repository of the hub."""

    kind: Literal["huggingface"] = "huggingface"
    path: str
    """A directory with a tokenizer.json, such a file, or a name on the hub: `owner/name`. What is on the disk
    comes first; then the hub's cache; then the hub (its address is the environment's HF_ENDPOINT)."""
    revision: str | None = None
    """Of a name on the hub: a branch, a tag or a commit. None: its main branch."""
    end_of_text: str | None = None
    """The special token that separates documents. None: the eos_token of tokenizer_config.json beside the file,
    else the first of `<|endoftext|>`, `<|end_of_text|>`, `</s>`, `<eos>` that the file has as a special token."""
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> HuggingFaceTokenizer:
        """Raises TokenizerError when there is no such file, or when it cannot be read."""
        file = _locate(self.path, self.revision)
        tree = _read(file)
        if not isinstance(tree.get("model", {}), dict) or not _are_tokens(tree.get("added_tokens", [])):
            raise TokenizerError(
                f"{file}: no tokenizer: `model`, an object, and `added_tokens`, a list of objects, are wanted"
            )
        end_of_text = self.end_of_text or self._end_by_settings(file, _special_names(tree))
        try:
            return HuggingFaceTokenizer(tree, self.special_tokens, end_of_text=end_of_text)
        except TokenizerError as error:
            raise TokenizerError(f"{file}: {error}") from None

    def _end_by_settings(self, file: Path, special: Sequence[str]) -> str | None:
        settings: Path | None = file.with_name(_SETTINGS)
        if not settings.is_file():
            is_local = Path(self.path).expanduser().exists()
            settings = None if is_local else _fetch(self.path, _SETTINGS, self.revision, is_needed=False)
        named = _read(settings).get("eos_token") if settings else None
        name = cast(Tree, named).get("content") if isinstance(named, dict) else named
        return name if name in special else None


def _locate(path: str, revision: str | None) -> Path:
    """The tokenizer.json that a path or a name means."""
    here = Path(path).expanduser()
    file = here / TOKENIZER_JSON if here.is_dir() else here
    if file.is_file():
        return file
    if here.is_dir():
        raise TokenizerError(
            f"{here}: no {TOKENIZER_JSON} in this directory; name one that has it, as `pellucid tokenizer train` "
            "and `save_pretrained` write it"
        )
    fetched = _fetch(path, TOKENIZER_JSON, revision) if _HUB_NAME.fullmatch(path) else None
    if fetched is None:
        raise TokenizerError(
            f"{path}: no such file or directory; name a {TOKENIZER_JSON}, a directory that has one, or a "
            "repository of the hub (owner/name)"
        )
    return fetched


def _fetch(name: str, file: str, revision: str | None, *, is_needed: bool = True) -> Path | None:
    """A file of a repository from the hub's cache, else from the hub. None: not needed, and not there."""
    hub = require("huggingface_hub", extra="data", purpose=f"{name}: fetching a tokenizer by name")
    try:
        cached = hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None and not is_needed:  # the cache remembers that there is none
            return None
        return Path(hub.hf_hub_download(name, file, revision=revision, tqdm_class=_quiet()))
    except (OSError, ValueError, RuntimeError, hub.errors.EntryNotFoundError) as error:
        if not is_needed and isinstance(error, hub.errors.RemoteEntryNotFoundError):
            return None
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise TokenizerError(
            f"{name}: no such file or directory here, and {file} cannot be fetched from the hub "
            f"({type(error).__name__}: {reason}). Check the name and the network, or give the path of a "
            f"{TOKENIZER_JSON}"
        ) from None


def _quiet() -> Any:
    from huggingface_hub.utils import tqdm

    class Quiet(tqdm):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    return Quiet


def _read(file: Path) -> Tree:
    try:
        content: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{file}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{file}: no tokenizer: an object is wanted, not a {type(content).__name__}")
    return cast(Tree, content)


# The tokenizer ----------------------------------------------------------------------------------------


class HuggingFaceTokenizer(BaseTokenizer):
    """A tokenizer.json, run by the `tokenizers` library, whose ids it gives.

    `tree` is the file's content. A special token in a text is ordinary text, as everywhere here
    (`encode_special_tokens`), and none is added by a post-processor; padding, truncation and dropout are off.

    For a byte-level vocabulary, decoding is exact: the bytes of the text (after the normalizer, if there is
    one) come back. For others a normalizer or the vocabulary may have lost something: `▁` is a space,
    `<0x0A>` a byte, and WordPiece's words have one space between them; the space that begins the first word is
    dropped by `decode` and kept by `decode_bytes`, which joins the bytes of single ids. A character without an
    id becomes the unknown token, or vanishes where the file has none.

    Raises TokenizerError for a file that the library cannot read, and for an added token that the vocabulary
    already has.
    """

    def __init__(
        self, tree: Mapping[str, Any], special_tokens: Sequence[str] = (), *, end_of_text: str | None = None
    ) -> None:
        tree = {**tree, "truncation": None, "padding": None}
        own_special = _special_names(tree)
        model = cast(Tree, tree.get("model") or {})
        if model.get("dropout"):
            tree["model"] = {**model, "dropout": None}
        self._text = _compact(tree)
        ids = cast("dict[str, int]", self._library.get_vocab(with_added_tokens=True))
        if taken := [token for token in special_tokens if token in ids and token not in own_special]:
            raise TokenizerError(f"the special token {taken[0]!r} is an ordinary token of this vocabulary")
        size = max(ids.values(), default=-1) + 1
        if size > len(ids) + _MOST_UNUSED_IDS:
            raise TokenizerError(f"an id of {size - 1:,} among {len(ids):,} tokens; ids are counted from 0")
        if special_tokens:
            new = [added_token(token, size + at) for at, token in enumerate(special_tokens)]
            tree["added_tokens"] = [*tree.get("added_tokens", []), *new]
            self._text = _compact(tree)
            del self._library

        is_byte_level = "ByteLevel" in _types(tree.get("decoder"))
        spell = _byte_level_bytes if is_byte_level else _speller(tree.get("decoder"))
        plain = {token["content"] for token in tree.get("added_tokens", [])}
        pieces = [b""] * size
        for token, number in ids.items():
            pieces[number] = token.encode() if token in plain else spell(token)
        ends = _end_of_text(end_of_text, [*own_special, *special_tokens])
        canonical = json.dumps([tree, ends], sort_keys=True)
        super().__init__(
            "huggingface",
            pieces,
            {token: ids[token] for token in own_special},
            special_tokens,
            algorithm=f"tokenizer.json {hashlib.sha256(canonical.encode()).hexdigest()}",
        )
        for token, number in self.special_tokens.items():
            if self._library.token_to_id(token) != number:
                raise TokenizerError(
                    f"the vocabulary has unused ids, so the library gives {token!r} the id "
                    f"{self._library.token_to_id(token)} and not {number}; add it to the file itself"
                )
        self._end_of_text = ends
        self.end_of_text_id = self.special_tokens[ends] if ends is not None else None
        self.cuts_at_words = is_byte_level and _cuts_at_words(tree)
        self._starts_with_space = not is_byte_level and self.decode_bytes(self.encode("a"))[:1] == b" "
        self._tokenizer_json_text = self._text

    def tokenizer_json(self) -> Tree:
        return json.loads(self._text)

    def _settings(self) -> Tree:
        """The saved file has the added tokens in it, and stands alone."""
        return {"path": TOKENIZER_JSON, "special_tokens": [], "end_of_text": self._end_of_text}

    # The library does not pickle what is set on it, and each process makes its own

    def __getstate__(self) -> Tree:
        return {key: value for key, value in vars(self).items() if not key.startswith("_library")}

    @cached_property
    def _library(self) -> Any:
        return self._read_by_library(special_as_text=True)

    @cached_property
    def _library_of_special(self) -> Any:
        return self._read_by_library(special_as_text=False)

    def _read_by_library(self, *, special_as_text: bool) -> Any:
        # The library's own threads ignore num_threads, and forks: texts are shared out here.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizers = require("tokenizers", extra="data", purpose="a tokenizer.json")
        try:
            made = tokenizers.Tokenizer.from_str(self._text)
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(f"no tokenizer.json that the tokenizers library reads: {error}") from None
        made.encode_special_tokens = special_as_text
        return made

    def encode(self, text: str, *, allow_special: bool = False) -> NDArray[np.uint32]:
        if not allow_special:
            return self._encode_part(text, 0)
        try:
            return _ids(self._library_of_special, [text])[0]
        except UnicodeEncodeError:
            return self._encode_part(text, 0)  # which explains it

    def decode(self, ids: Any, *, errors: str = "replace") -> str:
        text = super().decode(ids, errors=errors)
        return text.removeprefix(" ") if self._starts_with_space else text

    def _encode_text(self, text: str, at: int) -> NDArray[np.uint32]:
        return _ids(self._library, [text])[0]

    def _encode_texts(
        self, texts: Sequence[str], num_threads: int
    ) -> tuple[NDArray[np.uint32], Iterable[int]]:
        step = max(1, len(texts) // (8 * num_threads)) if num_threads > 1 else 256
        groups = [texts[start : start + step] for start in range(0, len(texts), step)]
        libraries = [self._library] * len(groups)
        if num_threads <= 1:
            done = map(_ids, libraries, groups)
            parts = [part for group in done for part in group]
        else:
            with ThreadPoolExecutor(num_threads) as pool:  # the library releases the interpreter lock
                parts = [part for group in pool.map(_ids, libraries, groups) for part in group]
        return np.concatenate([np.empty(0, dtype=np.uint32), *parts]), map(len, parts)


def _ids(library: Any, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
    for text in texts:
        text.encode()  # half a surrogate pair is refused here as for every other kind
    encoded = library.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(one.ids, dtype=np.uint32) for one in encoded]


def _end_of_text(name: str | None, special: Sequence[str]) -> str | None:
    if name is not None and name not in special:
        raise TokenizerError(
            f"end_of_text: {name!r} is no special token of it{nearest(name, special)} (it has: "
            f"{', '.join(special) or 'none'}); name one, or add it by special_tokens"
        )
    return name or next((token for token in ENDS_OF_TEXT if token in special), None)


# What a file says -------------------------------------------------------------------------------------


def _are_tokens(added: Any) -> bool:
    if not isinstance(added, list):
        return False
    return all(isinstance(token, dict) and "content" in token for token in cast("list[Any]", added))


def _special_names(tree: Mapping[str, Any]) -> list[str]:
    return [token["content"] for token in tree.get("added_tokens", []) if token.get("special")]


def _parts(part: Any) -> Iterator[Tree]:
    """A pre-tokenizer, normalizer or decoder, or the parts of a sequence of them."""
    if isinstance(part, dict):
        tree = cast(Tree, part)
        for name in ("pretokenizers", "decoders", "normalizers"):
            for below in tree.get(name, ()):
                yield from _parts(below)
        if tree.get("type") != "Sequence":
            yield tree


def _compact(tree: Tree) -> str:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def _types(part: Any) -> set[str]:
    return {below["type"] for below in _parts(part)}


def _cuts_at_words(tree: Tree) -> bool:
    """Whether no piece, and no token that is cut out before the pieces, goes over the end of a word."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    known: list[list[Tree]] = [[{**byte_level, "use_regex": True}]]
    for pattern in _KNOWN_PATTERNS:
        known.append([{**split, "pattern": {"Regex": pattern}}, {**byte_level, "use_regex": False}])
    cuts = _parts(tree.get("pre_tokenizer"))
    seen = [{key: value for key, value in cut.items() if key != "trim_offsets"} for cut in cuts]
    takes_space = any(
        token.get("lstrip") or token.get("rstrip") or any(c.isspace() for c in token["content"])
        for token in tree.get("added_tokens", [])
        if not token.get("special")
    )
    return not list(_parts(tree.get("normalizer"))) and seen in known and not takes_space


_BYTES = {chr(code): byte for code, byte in stand_ins().items()}


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(map(_BYTES.__getitem__, token))
    except KeyError:
        return token.encode()


def _speller(decoder: Any) -> Callable[[str], bytes]:
    """From a token to its bytes, for what is not byte-level."""
    spaces, falls_back, wordpiece, suffix = set[str](), False, None, None
    for part in _parts(decoder):
        match part:
            case {"type": "Metaspace", "replacement": str(mark)}:
                spaces.add(mark)
            case {"type": "Replace", "pattern": {"String": str(mark)}, "content": " "}:
                spaces.add(mark)
            case {"type": "ByteFallback"}:
                falls_back = True
            case {"type": "WordPiece", "prefix": str(mark)}:
                wordpiece = mark
            case {"type": "BPEDecoder", "suffix": str(mark)}:
                suffix = mark
            case _:
                pass

    def spell(token: str) -> bytes:
        if falls_back and (byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)):
            return bytes.fromhex(byte[1])
        if wordpiece is not None:
            token = token.removeprefix(wordpiece) if token.startswith(wordpiece) else f" {token}"
        if suffix is not None and token.endswith(suffix):
            token = token.removesuffix(suffix) + " "
        for mark in spaces:
            token = token.replace(mark, " ")
        return token.encode()

    return spell
