"""Other projects' models under the update that their users run, measured in this process: one JSON object out.

    python benchmarks/peers/training.py --model llama --setting bf16 --steps 4 --d-model 384 …

Models, all with one table for ids and head, without dropout:

    llama            transformers' LlamaForCausalLM (RMSNorm, RoPE, SwiGLU), loss by `labels`
    gpt2             transformers' GPT2LMHeadModel, loss by `labels`
    nanogpt          nanogpt.py
    x-transformers   TransformerWrapper + Decoder in its AutoregressiveWrapper, as its README has it
    litgpt           litgpt.GPT in Llama's shape, its `chunked_cross_entropy` as its pretraining calls it

Settings:

    default    float32, torch.optim.AdamW as it comes
    bf16       the same with forward and loss under bf16 autocast
    compiled   bf16 autocast, torch.compile on the whole model, fused AdamW; in x-transformers flash attention too
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

LEARNING_RATE, LARGEST_NORM = 1e-3, 1.0
WARMUP_STEPS = 3
Loss = Callable[[Tensor, Tensor], Tensor]
"""ids and targets, [B, T] each, to the mean loss."""


@dataclass(frozen=True)
class Shape:
    """What the models have in common. d_ff is that of three matrices (SwiGLU); with two it is 1.5 times as much."""

    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    vocab_size: int
    seq_len: int
    batch: int


def llama(shape: Shape, setting: str) -> tuple[nn.Module, Loss]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.seq_len,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return labelled(LlamaForCausalLM(config), setting)


def gpt2(shape: Shape, setting: str) -> tuple[nn.Module, Loss]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_embd=shape.d_model,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_inner=3 * shape.d_ff // 2,
        n_positions=shape.seq_len,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return labelled(GPT2LMHeadModel(config), setting)


def labelled(model: nn.Module, setting: str) -> tuple[nn.Module, Loss]:
    """Its own loss of its own shift: over T - 1 targets, which is no more work."""
    called = maybe_compiled(model, setting)
    return model, lambda ids, _: called(input_ids=ids, labels=ids).loss


def nanogpt(shape: Shape, setting: str) -> tuple[nn.Module, Loss]:
    from nanogpt import GPT

    model = GPT(shape.vocab_size, shape.d_model, shape.num_layers, shape.num_heads, shape.seq_len)
    return model, maybe_compiled(model, setting)


def x_transformers(shape: Shape, setting: str) -> tuple[nn.Module, Loss]:
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    layers = Decoder(
        dim=shape.d_model,
        depth=shape.num_layers,
        heads=shape.num_heads,
        attn_dim_head=shape.d_model // shape.num_heads,
        ff_mult=1.5 * shape.d_ff / shape.d_model,
        attn_flash=setting == "compiled",
    )
    model = AutoregressiveWrapper(
        TransformerWrapper(
            num_tokens=shape.vocab_size, max_seq_len=shape.seq_len, attn_layers=layers, tie_embedding=True
        )
    )
    called = maybe_compiled(model, setting)
    # It scores ids[1:] itself, so the last token of a row is computed and not scored, as much work as in the others.
    return model, lambda ids, targets: called(ids)


def litgpt(shape: Shape, setting: str) -> tuple[nn.Module, Loss]:
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        name="benchmark",
        block_size=shape.seq_len,
        n_layer=shape.num_layers,
        n_embd=shape.d_model,
        n_head=shape.num_heads,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape.d_ff,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
    )
    model = GPT(config)
    for (
        module
    ) in model.modules():  # as its pretraining begins; torch's own start is far too wide for a tied head
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    model.lm_head.weight = model.transformer.wte.weight
    called = maybe_compiled(model, setting)
    return model, lambda ids, targets: chunked_cross_entropy(called(ids), targets)


MODELS = {
    "llama": llama,
    "gpt2": gpt2,
    "nanogpt": nanogpt,
    "x-transformers": x_transformers,
    "litgpt": litgpt,
}
SETTINGS = ("default", "bf16", "compiled")


def maybe_compiled(model: nn.Module, setting: str) -> Callable[..., Tensor]:
    return torch.compile(model) if setting == "compiled" else model


def flops_per_token(model: nn.Module, shape: Shape) -> float:
    """FLOPs of training one token, by the formula that `pellucid.model.stats` counts by.

    3 · (2 · weights that the token is multiplied by, the head's included + 4 · T · D · layers): matrix products
    alone, attention over all T keys, a backward pass of twice the forward.
    """
    tables = {
        id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
    }
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1 and id(p) not in tables)
    weights += shape.vocab_size * shape.d_model  # the head, which is the token table
    return 3 * (2 * weights + 4 * shape.seq_len * shape.d_model * shape.num_layers)


def measure(name: str, setting: str, shape: Shape, steps: int, device: str) -> dict[str, float | int | str]:
    torch.manual_seed(0)
    model, loss_of = MODELS[name](shape, setting)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=setting == "compiled" or None)
    ids = torch.randint(shape.vocab_size, (shape.batch, shape.seq_len + 1), device=device)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step() -> float:
        with nullcontext() if setting == "default" else torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    clock = time.perf_counter()
    losses = [step()]
    first_step_s = time.perf_counter() - clock
    losses += [step() for _ in range(1, WARMUP_STEPS)]
    cpu, wall, seconds = time.process_time(), time.perf_counter(), []
    for _ in range(steps):
        began = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - began)
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return {
        "tokens_per_s": inputs.numel() / statistics.median(seconds),
        "peak_rss_mib": peak_mib(device),
        "flops_per_token": flops_per_token(model, shape),
        "first_step_s": first_step_s,
        "cpu_share": cpu_share,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": "fp32" if setting == "default" else "bf16",
        "threads": torch.get_num_threads(),
    }


def peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    for field in fields(Shape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, required=True)
    words = parser.parse_args()
    shape = Shape(**{field.name: getattr(words, field.name) for field in fields(Shape)})
    print(json.dumps(measure(words.model, words.setting, shape, words.steps, words.device)))


if __name__ == "__main__":
    main()
