"""llama.cpp through the low-level functions of llama-cpp-python: its own kernels, and a loop that does nothing else.

Logits are made of the last token alone, and the largest is looked up in place, so that little of Python is timed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine import make

FLASH = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}
ERROR = 4
"""Its level in ggml.h."""


def convert(files: Path, *, number_format: str, **_: Any) -> None:
    """The checkpoint as a GGUF file, quantised as `pellucid export` does."""
    from pellucid import checkpoint
    from pellucid.interop.gguf import write_gguf

    def write(path: Path) -> None:
        loaded = checkpoint.load(files / "checkpoint")
        write_gguf(path, loaded.model, loaded.tokenizer, number_format=number_format)

    make(path_of(files, number_format), write)


def path_of(files: Path, number_format: str) -> Path:
    return files / f"{number_format}.gguf"


class Engine:
    def __init__(
        self, path: Path, threads: int, length: int, *, flash_attention: str, extra_buffers: bool
    ) -> None:
        from llama_cpp import llama_cpp

        self._lib: Any = llama_cpp
        said: list[str] = []

        @llama_cpp.llama_log_callback
        def listen(level: int, text: bytes, data: ctypes.c_void_p) -> None:
            if level == ERROR:
                said.append(text.decode(errors="replace"))

        self._listen = listen  # called back for as long as this process lives
        llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
        loading = llama_cpp.llama_model_default_params()
        loading.n_gpu_layers = 0
        loading.use_extra_bufts = extra_buffers
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), loading)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = length
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = getattr(llama_cpp, f"LLAMA_FLASH_ATTN_TYPE_{FLASH[flash_attention]}")
        self._context = self._model and llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise SystemExit(" ".join("".join(said).split()) or "llama.cpp does not load it")
        self.weight_bytes = int(llama_cpp.llama_model_size(self._model))
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        (prompt,) = prompts
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        written: list[int] = []
        unread = prompt
        while len(written) < count:
            unread = [self._next(unread)]
            written += unread
            mark()
        return [written]

    def _next(self, ids: list[int]) -> int:
        """Read the ids; the most probable next one."""
        tokens = (self._lib.llama_token * len(ids))(*ids)
        # A batch made so has no list of wanted logits, which means the last token's alone.
        if failed := self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(tokens, len(ids))):
            raise SystemExit(f"llama_decode gives {failed}")
        logits = self._lib.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def open_engine(
    files: Path,
    threads: int,
    length: int,
    *,
    number_format: str,
    flash_attention: str = "auto",
    extra_buffers: bool = False,
) -> Engine:
    """extra_buffers: weights repacked for the processor's own instructions, AMX among them."""
    path = path_of(files, number_format)
    return Engine(path, threads, length, flash_attention=flash_attention, extra_buffers=extra_buffers)
