"""The model that all rows have in common, and how its fp32 weights judge what a row has written.

    python benchmarks/generation/model.py write --shape '{…}' --files DIR
    python benchmarks/generation/model.py judge --files DIR < '[{"prompts": …, "written": …}, …]'

In DIR: `checkpoint/` is ours, `hf/` the same for transformers; other formats are made of them beside.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import checkpoint, tokenizers
from pellucid.checkpoint import Contents
from pellucid.config import to_tree
from pellucid.interop.huggingface import write_hf
from pellucid.model import DecoderConfig, Transformer
from pellucid.model.feedforward import SwiGLUConfig


def random_model(shape: dict[str, int]) -> Transformer:
    """Llama's parts: RMSNorm, RoPE, SwiGLU, no biases, one table for ids and head.

    Every matrix is drawn from normal(0, 1 / sqrt(columns)) and not as before training, when branches are small and the
    most probable id, by the tied head, is the one just read: over and over, whatever the kernels do.
    """
    sizes = {name: size for name, size in shape.items() if name != "d_ff"}
    config = DecoderConfig(**sizes, feed_forward=SwiGLUConfig(d_ff=shape["d_ff"]), tie_embeddings=True)
    model = config.build(seed=0).eval()
    roles = model.parameter_roles()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if roles[name] in ("matrix", "residual_matrix"):
                parameter.mul_(parameter.shape[1] ** -0.5 / parameter.std())
    return model


def write(shape: dict[str, int], files: Path) -> None:
    """The checkpoint and its Hugging Face directory. Its words are bytes; ids beyond them have none."""
    model, tokenizer = random_model(shape), tokenizers.build("byte")
    checkpoint.save(
        files / "checkpoint",
        Contents({"model": to_tree(model.config)}, dict(model.named_parameters()), tokenizer),
    )
    aside = files / "hf-unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    write_hf(aside, model, tokenizer)
    aside.rename(files / "hf")


@torch.inference_mode()
def shortfall(model: Transformer, prompt: list[int], written: list[int]) -> dict[str, float]:
    """How far each id that was written is from what fp32 would have chosen after the same ids.

        mean over positions of (largest logit - logit of the written id) / standard deviation of the logits

    0 where every id is fp32's own choice. Ids taken at random fall short by about the largest of V normal draws, 4.2
    for V = 50,304. Random weights have near ties, so that narrower formats choose other ids and go on from there: what
    was written is compared position by position, never text by text. same: how many ids in front are those of greedy
    decoding in fp32.
    """
    ids = torch.tensor([prompt + written[:-1]])
    states = model.hidden(ids).states[:, len(prompt) - 1 :]
    logits = model.head(states)[0]  # [count, V]
    chosen = torch.tensor(written)
    lost = logits.amax(dim=-1) - logits.gather(1, chosen[:, None])[:, 0]
    return {"shortfall": float((lost / logits.std(dim=-1)).mean()), "same": _same_in_front(logits, chosen)}


def _same_in_front(logits: Tensor, chosen: Tensor) -> int:
    differs = (logits.argmax(dim=-1) != chosen).nonzero()
    return int(differs[0]) if len(differs) else len(chosen)


def judge(files: Path, turns: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Of each turn: the mean shortfall of its rows, the worst row's, and the fewest ids that are the same in front."""
    model = checkpoint.load(files / "checkpoint").model
    found = []
    for turn in turns:
        rows = [shortfall(model, *pair) for pair in zip(turn["prompts"], turn["written"], strict=True)]
        falls = [row["shortfall"] for row in rows]
        found.append(
            {
                "shortfall": sum(falls) / len(falls),
                "worst_shortfall": max(falls),
                "same_in_front": min(row["same"] for row in rows),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("write", "judge"))
    parser.add_argument("--shape", type=json.loads)
    parser.add_argument("--files", type=Path, required=True)
    words = parser.parse_args()
    if words.do == "write":
        write(words.shape, words.files)
    else:
        print(json.dumps(judge(words.files, json.load(sys.stdin))))


if __name__ == "__main__":
    main()
