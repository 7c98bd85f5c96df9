"""A saved tokenizer: `pellucid.json`, the config that makes it again and the fingerprint it must have.

Beside it lies `tokenizer.json`, by which other programs read the same tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

from pellucid.errors import TokenizerError
from pellucid.runtime.files import storage_errors, write_atomic

FILE_NAME = "pellucid.json"
TOKENIZER_JSON = "tokenizer.json"
FORMAT = 1


class Stored(NamedTuple):
    """What `pellucid.json` holds: a tree of the union `TokenizerConfig`, and a fingerprint."""

    config: dict[str, Any]
    fingerprint: str


def write(directory: Path, saved: Stored, tokenizer_json: str | None = None) -> None:
    """Write `pellucid.json`, and `tokenizer.json` if there is one, into the directory, which is made if needed."""
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if tokenizer_json is None:  # none of an earlier tokenizer may stay
            (directory / TOKENIZER_JSON).unlink(missing_ok=True)
    if tokenizer_json is not None:
        write_atomic(directory / TOKENIZER_JSON, tokenizer_json)
    content = {"format": FORMAT, "tokenizer": saved.config, "fingerprint": saved.fingerprint}
    write_atomic(directory / FILE_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read(directory: Path) -> Stored:
    """Read `pellucid.json`. Raises TokenizerError when it is missing, broken, or of a later format."""
    path = directory / FILE_NAME
    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise TokenizerError(f"{path}: no tokenizer can be read here ({error.strerror})") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: broken: not JSON: {error}") from None
    fields = cast(dict[str, Any], content) if isinstance(content, dict) else {}
    version = fields.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise TokenizerError(
            f"{path}: in format {version}, of a later version of Pellucid; this one reads up to {FORMAT}"
        )
    config, fingerprint = fields.get("tokenizer"), fields.get("fingerprint")
    if version != FORMAT or not isinstance(config, dict) or not isinstance(fingerprint, str):
        raise TokenizerError(f"{path}: broken: it needs the keys format, tokenizer and fingerprint")
    return Stored(cast(dict[str, Any], config), fingerprint)
