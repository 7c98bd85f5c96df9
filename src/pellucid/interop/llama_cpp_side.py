"""A GGUF file in llama.cpp, by the low-level functions of llama-cpp-python: the other side of a receipt."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import ParityError
from pellucid.interop.gguf import GGUFFormat
from pellucid.interop.receipt import Tolerance

LIBRARY = "llama_cpp"
_NEEDED = ("llama_init_from_model", "llama_get_memory", "llama_vocab_eos", "LLAMA_FLASH_ATTN_TYPE_DISABLED")
"""What older versions lack."""
_ERROR = 4
"""Its level in ggml.h; the numbers in the comments of llama-cpp-python are older."""

TOLERANCES: dict[GGUFFormat, Tolerance] = {
    "f32": Tolerance(logits=1e-3, perplexity=1e-3),
    "f16": Tolerance(logits=5e-3, perplexity=2e-3, greedy=False),
    "bf16": Tolerance(logits=3e-2, perplexity=1e-2, greedy=False),
    "q8_0": Tolerance(logits=0.15, perplexity=5e-2, greedy=False),
    "q4_0": Tolerance(logits=0.15, perplexity=5e-2, greedy=False),
    "q4_1": Tolerance(logits=0.15, perplexity=5e-2, greedy=False),
}
"""Against a model with the weights of the file. llama.cpp rounds what it multiplies by a matrix to the matrix's own
format, or to 8 bits where that is quantised; in f32 its GELU alone is rounded, read from a table in f16. Logits of tiny
models of random weights differed by up to 4e-4, 2e-3, 1e-2, 5e-2, 4e-2 and 6e-2, those of SmolLM2-135M by 2e-6 in f32,
1e-2 in bf16, and 6e-2 (perplexity by 1.4 %) in 4 bits; one flipped weight of the tiny ones made 0.1 to 0.8.
"""


class InLlamaCpp:
    """A file, loaded by llama.cpp: one thread, keys and values in float32, on the CPU.

    `length` is how many tokens it is to read at once. Raises ImportError where llama-cpp-python is not there or does
    not work, and ParityError with llama.cpp's own words for a file that it does not load.
    """

    def __init__(self, path: Path, *, length: int) -> None:
        package = _package()
        self._lib: Any = package.llama_cpp
        self.name = f"llama.cpp (llama-cpp-python {package.__version__})"
        log = _listen(self._lib)
        log.lines.clear()
        self._model = self._load(path)
        self._context = self._model and self._lib.llama_init_from_model(self._model, self._settings(length))
        if not self._context:
            if self._model:
                self._lib.llama_model_free(self._model)
            said = " ".join("".join(log.lines).split())
            raise ParityError(f"{path}: llama.cpp does not load it: {said}")
        weakref.finalize(self, _free, self._lib, self._model, self._context)
        self._vocab = self._lib.llama_model_get_vocab(self._model)

    def _load(self, path: Path) -> Any:
        settings = self._lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        # With them, quantised matrices crash on CPUs that have AMX: github.com/ggml-org/llama.cpp/issues/20824.
        if hasattr(settings, "use_extra_bufts"):
            settings.use_extra_bufts = False
        return self._lib.llama_model_load_from_file(str(path).encode(), settings)

    def _settings(self, length: int) -> Any:
        settings = self._lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = 1
        settings.type_k = settings.type_v = self._lib.GGML_TYPE_F32
        settings.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return settings

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        ids = (self._lib.llama_token * (len(data) + 1))()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, True)
        return list(ids[:count])

    def logits(self, ids: Sequence[int], target: Sequence[int]) -> NDArray[np.float64]:
        del target  # decoders have none
        return self._read_anew(ids).astype(np.float64)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        written: list[int] = []
        end = self.end_of_text
        logits = self._read_anew(ids)
        while len(written) < count and end not in written:
            written.append(int(logits[-1].argmax()))
            logits = self._read(written[-1:], at=len(ids) + len(written) - 1)
        return written

    def decode(self, ids: Sequence[int]) -> str:
        numbers = (self._lib.llama_token * len(ids))(*ids)
        text = ctypes.create_string_buffer(4096 + 64 * len(ids))
        size = self._lib.llama_detokenize(self._vocab, numbers, len(ids), text, len(text), False, True)
        return text.raw[: max(0, size)].decode(errors="replace")

    @property
    def end_of_text(self) -> int | None:
        end: int = self._lib.llama_vocab_eos(self._vocab)
        return end if end >= 0 else None

    def _read_anew(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        return self._read(ids, at=0)

    def _read(self, ids: Sequence[int], *, at: int) -> NDArray[np.float32]:
        """Logits [T, V] of ids that stand from place `at` on."""
        batch = self._lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for index, number in enumerate(ids):
                batch.token[index], batch.pos[index] = number, at + index
                batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
            if failed := self._lib.llama_decode(self._context, batch):
                raise ParityError(f"llama.cpp does not read {len(ids)} tokens: llama_decode gives {failed}")
        finally:
            self._lib.llama_batch_free(batch)
        shape = len(ids), self._lib.llama_vocab_n_tokens(self._vocab)
        return np.ctypeslib.as_array(self._lib.llama_get_logits(self._context), shape).copy()


def _package() -> Any:
    try:
        package: Any = import_module(LIBRARY)
    except (OSError, RuntimeError) as error:  # a library that was built for another machine
        raise ImportError(" ".join(str(error).split())[:300]) from error
    missing = [name for name in _NEEDED if not hasattr(package.llama_cpp, name)]
    if missing:
        raise ImportError(f"its version, {package.__version__}, has no {missing[0]}; install a newer one")
    return package


def _free(lib: Any, model: Any, context: Any) -> None:
    lib.llama_free(context)
    lib.llama_model_free(model)


class _Log(NamedTuple):
    callback: Any
    lines: list[str]


@cache
def _listen(lib: Any) -> _Log:
    """Errors are kept instead of printed, and the rest of what llama.cpp says is dropped. Its log is one for the whole
    process, and calls back for as long as that lives.
    """
    lines: list[str] = []

    @lib.llama_log_callback
    def keep(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        del data
        if level == _ERROR:
            lines.append(text.decode(errors="replace"))

    lib.llama_log_set(keep, ctypes.c_void_p(0))
    return _Log(keep, lines)
