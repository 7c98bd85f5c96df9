"""Prompts from a file or a pipe, each with the place that it came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import ConfigError, DataError


@dataclass(frozen=True)
class FilePrompt:
    text: str
    where: str
    """Such as `prompts.txt:3: `, before a message."""


def read_prompts(path: Path) -> list[FilePrompt]:
    """A prompt of each line that is not blank; of a `.jsonl` file, of each string or object with a "prompt".

    Raises DataError, with file and line, for what cannot be read, is no text, or has no prompt.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file of prompts") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    is_json = path.suffix.lower() in (".jsonl", ".ndjson")
    prompts: list[FilePrompt] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}: "
        text = _decoded(line, where).removeprefix("\ufeff" if number == 1 else "").rstrip("\r")
        if text.strip():
            prompts.append(FilePrompt(_json_prompt(text, where) if is_json else text, where))
    if not prompts:
        raise DataError(f"{path}: has no prompt in it; write one a line")
    return prompts


def piped_prompts() -> Iterator[str]:
    """Each line of standard input, empty ones too, until it ends. Raises ConfigError for what is no text."""
    while True:
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            line = "\x00"
        if not line:
            return
        if "\x00" in line:
            raise ConfigError("standard input is not text; type a prompt or give --prompt")
        yield line.rstrip("\r\n")


def _decoded(line: bytes, where: str) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where}not UTF-8 text; save the file as UTF-8") from None
    if "\x00" in text:
        raise DataError(f"{where}a zero byte, which no text has; give a file of text")
    return text


def _json_prompt(line: str, where: str) -> str:
    wanted = 'each line is a string or an object with a "prompt"'
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}not JSON ({error}); {wanted}") from None
    prompt: Any = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise DataError(f"{where}{wanted}, not {line.strip()[:60]}")
    return prompt
