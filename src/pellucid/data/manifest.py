"""manifest.json: what a prepared directory holds, and what it was made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pellucid.config import Config, from_tree
from pellucid.data.sources.base import SourceRecord
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import write_atomic
from pellucid.tokenizers import Tokenizer

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "unfinished.json"
"""In a directory that is being prepared: how far that has come."""
_LATER_FIELDS = {"pair_fields", "special_tokens", "deduplicated", "document_marker", "errors", "revision"}
"""Of a recipe and its source's record: what the first version of the format did not have."""
TOKENIZER = "tokenizer"
"""The directory, inside a prepared one, in which the tokenizer saved itself."""


class TokenizerRecord(Config):
    """Which tokenizer made the ids."""

    kind: str
    fingerprint: str
    end_of_text_id: int | None = None
    """The id after every document; None where documents follow each other with no mark between them."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, marks_ends: bool = True) -> TokenizerRecord:
        """marks_ends: whether documents are ended by the tokenizer's end-of-text id, where it has one."""
        end = tokenizer.end_of_text_id if marks_ends else None
        return cls(kind=tokenizer.kind, fingerprint=tokenizer.fingerprint, end_of_text_id=end)


def dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smaller type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class SplitRule(Config):
    """How training and validation text were told apart.

    `tail`, for one running text of n characters: training has the first int(n · (1 - val_fraction)).
    `content-hash`, for documents: a document is for validation when the first 8 bytes of the SHA-256 of its
    UTF-8 text, as a little-endian integer, are below val_fraction · 2^64. So equal texts are always on one
    side, and neither the order of the documents nor the presence of others moves one. Where a side would
    stay empty, it takes the documents with the lowest (validation) or highest (training) hash. The source
    and the target of a pair are hashed together, with a NUL between them, and so stay together.
    `first-documents`, for streams: the first documents of one shard are for validation.
    """

    rule: Literal["tail", "content-hash", "first-documents"]
    val_fraction: float


class Recipe(Config):
    """Everything that determines the contents of a prepared directory."""

    format_version: int = FORMAT_VERSION
    dtype: Literal["uint16", "uint32"]
    """The ids' type in the .bin files, little-endian."""
    vocab_size: int
    shard_tokens: int
    """The tokens in every shard of a split but its last, which has what is left."""
    tokenizer: TokenizerRecord
    source: SourceRecord
    split: SplitRule
    special_tokens: Literal["parsed"] | None = None
    """In paired data: special tokens that stand in a text have their own ids. None: they are plain text."""
    deduplicated: bool = False
    """Whether only the first of equal documents was kept."""

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the recipe without the source's name: two with equal keys give equal shards."""
        parts = self.model_dump(mode="json", include=set(Recipe.model_fields), exclude={"source": {"name"}})
        for tree, model in ((parts, Recipe), (parts["source"], SourceRecord)):
            for name in _LATER_FIELDS & tree.keys():  # so that a recipe without them keeps its key
                if tree[name] == model.model_fields[name].default:
                    del tree[name]
        return sha256_json(parts)

    @property
    def passport(self) -> dict[str, Any]:
        """The recipe as a tree in which files stand by their names, so that two can be compared line by line."""
        return passport(self.model_dump(mode="json", include=set(Recipe.model_fields), exclude_none=True))

    def differences(self, other: Recipe) -> list[str]:
        """One line for each part in which the other recipe differs from this one."""
        lines: list[str] = []
        for name in Recipe.model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "source":
                mine, theirs = mine.model_copy(update={"name": ""}), theirs.model_copy(update={"name": ""})
            if mine != theirs:
                lines.append(f"{name}: {_short(mine)} there, {_short(theirs)} asked for")
        return lines


class ShardRecord(Config):
    """One shard: `NAME.bin` (ids) and `NAME.starts` (uint64, little-endian: where in it documents begin)."""

    name: Annotated[str, Field(pattern=r"^(train|val)-\d{5,}$")]
    tokens: Annotated[int, Field(ge=0)]
    documents: Annotated[int, Field(ge=0)]
    """The documents that begin in this shard: one that goes on into the next is counted here only."""
    sha256: str
    starts_sha256: str


class SplitRecord(Config):
    """One side of the split."""

    documents: int
    tokens: int
    """With the end-of-text ids."""
    bytes: int
    """Of the text, as UTF-8: what bits per byte are counted by."""
    shards: tuple[ShardRecord, ...]
    longest: int | None = None
    """Tokens of the longest document, with its end-of-text id."""
    duplicates: int = 0
    """Documents that were dropped because an equal one came before."""


class Manifest(Recipe):
    """The recipe and what came of it."""

    train: SplitRecord
    val: SplitRecord
    left_out: dict[str, int] = Field(default_factory=dict[str, int])
    """How many documents were left out, or had bytes replaced, by reason."""
    first_left_out: dict[str, str] = Field(default_factory=dict[str, str])
    """Where each reason was first met."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what determines the ids and their order: shard hashes, dtype and tokenizer.

        A run that resumes on a directory with the same fingerprint sees the same batches.
        """
        shards = [[record.sha256 for record in split.shards] for split in (self.train, self.val)]
        return sha256_json([self.format_version, self.dtype, self.tokenizer.fingerprint, shards])


def passport(recipe: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe with its source's files by name."""
    source = dict(recipe["source"])
    source["files"] = {file["name"]: file["sha256"] for file in source["files"]}
    return {**recipe, "source": source}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=2)
    write_atomic(directory / MANIFEST, text + "\n")


def is_prepared(directory: Path) -> bool:
    """Whether a directory has a manifest, which is the last file that `prepare` writes."""
    return (directory / MANIFEST).is_file()


def read_manifest(directory: Path) -> Manifest:
    """Raises DataError when there is no manifest, or one that this version cannot read."""
    path = directory / MANIFEST
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{directory}: not a prepared directory: it has no {MANIFEST}; make one with `pellucid prepare`"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; prepare the data again") from None
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: wanted format version {FORMAT_VERSION}, found {version!r}; "
            "prepare the data again with this version of pellucid"
        )
    try:
        return from_tree(Manifest, tree, where=str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, however its keys were ordered."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _short(value: object) -> str:
    if isinstance(value, TokenizerRecord):
        return f"{value.kind} ({value.fingerprint[:12]})"
    if isinstance(value, SplitRule):
        return f"{value.rule} {value.val_fraction}"
    if isinstance(value, SourceRecord):
        fields = f" of pairs ({', '.join(value.pair_fields)})" if value.pair_fields else ""
        digest = sha256_json(value.model_dump(mode="json"))[:12]
        return f"{len(value.files)} file(s){fields} with hash {digest}"
    return str(value)
