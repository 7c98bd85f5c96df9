"""transformers' `generate` with its default cache, which grows, and torch's fused attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Marking(BaseStreamer):
    """Told first the prompt, then each step's ids."""

    def __init__(self, mark: Callable[[], None]) -> None:
        self._mark, self._is_prompt = mark, True

    def put(self, value: torch.Tensor) -> None:
        if not self._is_prompt:
            self._mark()
        self._is_prompt = False

    def end(self) -> None:
        pass


class Engine:
    def __init__(self, directory: Path, dtype: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=DTYPES[dtype]).eval()
        self._model.generation_config.eos_token_id = None  # so that nothing ends a text
        self._model.generation_config.pad_token_id = 0
        self.weight_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())

    @torch.inference_mode()
    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        ids = torch.tensor(prompts)
        out = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            streamer=Marking(mark),
        )
        return out[:, ids.shape[1] :].tolist()


def open_engine(files: Path, threads: int, length: int, *, dtype: str) -> Engine:
    torch.set_num_threads(threads)
    return Engine(files / "hf", dtype)
