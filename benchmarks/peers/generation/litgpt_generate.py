"""litgpt's GPT in Llama's shape, through its own `generate_fn`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from litgpt import GPT, Config
from litgpt.generate.base import generate_fn
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from safetensors.torch import load_file

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def config_of(theirs: dict) -> Config:
    return Config(
        name="benchmark",
        block_size=theirs["max_position_embeddings"],
        n_layer=theirs["num_hidden_layers"],
        n_embd=theirs["hidden_size"],
        n_head=theirs["num_attention_heads"],
        n_query_groups=theirs["num_key_value_heads"],
        vocab_size=theirs["vocab_size"],
        padded_vocab_size=theirs["vocab_size"],
        norm_class_name="RMSNorm",
        norm_eps=theirs["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
        intermediate_size=theirs["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
    )


class Engine:
    def __init__(self, directory: Path, dtype: str, length: int) -> None:
        config = config_of(json.loads((directory / "config.json").read_text(encoding="utf-8")))
        found = load_file(directory / "model.safetensors")
        weights: dict[str, torch.Tensor] = {}
        copy_weights_hf_llama(config, {}, weights, found)
        self._model = GPT(config)
        weights["lm_head.weight"] = weights["transformer.wte.weight"]
        self._model.load_state_dict(weights)
        self._model.lm_head.weight = self._model.transformer.wte.weight
        self._model.to(DTYPES[dtype]).eval()
        self._model.max_seq_length = length
        self._model.set_kv_cache(batch_size=1)
        self.weight_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())

    def write(self, prompts: list[list[int]], count: int, mark: Callable[[], None]) -> list[list[int]]:
        (prompt,) = prompts
        written: list[int] = []
        steps = generate_fn(
            self._model,
            torch.tensor(prompt),
            len(prompt) + count,
            temperature=0.0,
            top_p=0.0,  # with its default of 1 it draws, whatever the temperature
            include_prompt=False,
            include_eos=False,
        )
        for new in steps:
            written.append(int(new))
            mark()
        return [written]


def open_engine(files: Path, threads: int, length: int, *, dtype: str) -> Engine:
    torch.set_num_threads(threads)
    return Engine(files / "hf", dtype, length)
