"""CTranslate2's Generator on weights that its own converter rounded to 8 bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import make


def convert(files: Path, *, compute_type: str) -> None:
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(files / "hf"))
    make(files / f"ct2-{compute_type}", lambda path: converter.convert(str(path), quantization=compute_type))


class Engine:
    def __init__(self, directory: Path, compute_type: str, threads: int) -> None:
        import ctranslate2

        self._generator: Any = ctranslate2.Generator(
            str(directory), compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self._tokens: list[str] = json.loads((directory / "vocabulary.json").read_text(encoding="utf-8"))
        self.weight_bytes = (directory / "model.bin").stat().st_size

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        def on_step(_: Any) -> bool:
            mark()
            return False  # True would end it

        (result,) = self._generator.generate_batch(
            [[self._tokens[number] for number in prompt] for prompt in prompts],
            max_length=count,
            min_length=count,
            include_prompt_in_result=False,
            callback=on_step,
        )
        return [result.sequences_ids[0]]


def open_engine(files: Path, threads: int, length: int, *, compute_type: str) -> Engine:
    return Engine(files / f"ct2-{compute_type}", compute_type, threads)
