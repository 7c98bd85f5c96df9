"""ONNX Runtime GenAI on the model that its own builder writes in 4 bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engine import make

PRECISION = "int4"
OPTIONS = {"int4_accuracy_level": 4, "int4_block_size": 32}
"""Level 4 multiplies in 8-bit integers, its fastest on a CPU; blocks as long as q4_0's."""


def convert(files: Path) -> None:
    def write(path: Path) -> None:
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(files / "hf")]
        chosen = ["-o", str(path), "-p", PRECISION, "-e", "cpu", "-c", str(files / "cache")]
        words = [f"{key}={value}" for key, value in OPTIONS.items()]
        subprocess.run([*builder, *chosen, "--extra_options", *words], check=True, stdout=sys.stderr)

    make(files / PRECISION, write)


def weight_bytes(path: Path) -> int:
    """Of every stored tensor that some product reads; a table that is only looked up row by row is none."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    readers = [node for node in graph.node if not node.op_type.startswith("Gather")]
    read = {name for node in readers for name in node.input}
    return sum(size_of(tensor) for tensor in graph.initializer if tensor.name in read)


def size_of(tensor) -> int:
    stored = {entry.key: entry.value for entry in tensor.external_data}
    return int(stored["length"]) if "length" in stored else len(tensor.raw_data)


class Engine:
    def __init__(self, directory: Path, threads: int) -> None:
        import onnxruntime_genai

        self._genai = onnxruntime_genai
        config = onnxruntime_genai.Config(str(directory))
        session = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self._model = onnxruntime_genai.Model(config)
        self.weight_bytes = weight_bytes(directory / "model.onnx")

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        (prompt,) = prompts
        settings = self._genai.GeneratorParams(self._model)
        length = len(prompt) + count
        settings.set_search_options(do_sample=False, max_length=length, min_length=length, batch_size=1)
        generator = self._genai.Generator(self._model, settings)
        generator.append_tokens(prompt)
        written: list[int] = []
        for _ in range(count):
            generator.generate_next_token()
            written.append(int(generator.get_next_tokens()[0]))
            mark()
        return [written]


def open_engine(files: Path, threads: int, length: int) -> Engine:
    return Engine(files / PRECISION, threads)
