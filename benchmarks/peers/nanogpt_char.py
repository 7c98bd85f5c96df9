"""How well does nanoGPT's CPU recipe for character-level tiny Shakespeare do on this text and machine?

An independent rebuild in plain PyTorch of what `train.py config/train_shakespeare_char.py --device=cpu
--compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4
--n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0` does: fp32, eager, loss printed at
every step, its own sampled evaluation every 250 steps. What differs makes it a little faster, never
slower: no checkpoints are written, batches are cut out of a tensor in memory, and it makes max_iters
updates where nanoGPT makes max_iters + 1.

Source: github.com/karpathy/nanoGPT (MIT), read for its numbers; no line is taken from it.

    python benchmarks/peers/nanogpt_char.py --text FILE --seed 1337 --threads 2 --json
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_LAYERS, NUM_HEADS, D_MODEL, CONTEXT = 4, 4, 128, 64
BATCH, WARMUP_STEPS, MAX_LR, MIN_LR = 12, 100, 1e-3, 1e-4
EVAL_EVERY, EVAL_BATCHES = 250, 20
TRAIN_FRACTION = 0.9


class Attention(nn.Module):
    """Causal self-attention of NUM_HEADS heads, no biases. [B, T, D] → [B, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(D_MODEL, 3 * D_MODEL, bias=False)
        self.residual_out = nn.Linear(D_MODEL, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_keys_values(x).chunk(3, dim=-1)  # each [B, T, D]
        q, k, v = (part.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for part in parts)  # [B, H, T, E]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.residual_out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """D → 4D, exact GELU, 4D → D, no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(D_MODEL, 4 * D_MODEL, bias=False)
        self.residual_out = nn.Linear(4 * D_MODEL, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual_out(F.gelu(self.widen(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(D_MODEL, bias=False)
        self.attention = Attention()
        self.feed_forward_norm = nn.LayerNorm(D_MODEL, bias=False)
        self.feed_forward = FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class GPT(nn.Module):
    """GPT-2's shape with a tied head: ids [B, T ≤ CONTEXT] → logits [B, T, V]."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocab_size, D_MODEL)
        self.positions = nn.Embedding(CONTEXT, D_MODEL)
        self.blocks = nn.Sequential(*(Block() for _ in range(NUM_LAYERS)))
        self.norm = nn.LayerNorm(D_MODEL, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_residual = name.endswith("residual_out.weight")
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * NUM_LAYERS) if is_residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.characters(ids) + self.positions.weight[: ids.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.characters.weight)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction=reduction)


def random_batch(ids: Tensor) -> tuple[Tensor, Tensor]:
    """BATCH windows drawn with replacement: inputs and targets, each [B, CONTEXT]."""
    starts = torch.randint(len(ids) - CONTEXT, (BATCH, 1))
    windows = ids[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


def learning_rate(step: int, steps: int) -> float:
    """Linear warmup to MAX_LR, then a cosine down to MIN_LR at `steps`."""
    if step < WARMUP_STEPS:
        return MAX_LR * (step + 1) / (WARMUP_STEPS + 1)
    progress = (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * progress)) * (MAX_LR - MIN_LR)


@torch.no_grad()
def sampled_loss(model: GPT, ids: Tensor) -> float:
    """nanoGPT's own estimate: the mean over EVAL_BATCHES random batches."""
    model.eval()
    losses = [cross_entropy(model(x), y).item() for x, y in (random_batch(ids) for _ in range(EVAL_BATCHES))]
    model.train()
    return sum(losses) / len(losses)


@torch.no_grad()
def mean_nats(model: Callable[[Tensor], Tensor], ids: Tensor, context: int, stride: int) -> float:
    """Mean −ln p in nats over every id but the first, each scored exactly once.

    Windows of `context` inputs start every `stride` ids. The first scores all its targets, a later one
    only those that the window before did not reach: its last `stride`, which have at least
    context − stride + 1 ids before them. With stride = context the windows do not overlap.
    `ids` [N] with N > context; `model` maps ids [B, T ≤ context] to logits [B, T, V].
    """
    inputs, targets = ids[:-1], ids[1:]
    rows = inputs.unfold(0, context, stride), targets.unfold(0, context, stride)
    total, scored = 0.0, 0
    for x, y in zip(*(r.split(128) for r in rows), strict=True):
        nats = cross_entropy(model(x), y, "none").double().view(y.shape)
        is_new = torch.arange(context).expand(y.shape) >= context - stride
        is_new[0] |= scored == 0
        total, scored = total + nats[is_new].sum().item(), scored + int(is_new.sum())
    if remaining := len(targets) - scored:
        start = len(rows[0]) * stride
        nats = cross_entropy(model(inputs[None, start:]), targets[None, start:], "none").double()
        total += nats[-remaining:].sum().item()
    return total / len(targets)


def train(vocab_size: int, train_ids: Tensor, val_ids: Tensor, steps: int) -> tuple[GPT, float, float]:
    """Build and train. Returns the model, the seconds spent in evaluation, and its last sampled loss."""
    model = GPT(vocab_size)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=MAX_LR,
        betas=(0.9, 0.99),
    )
    evaluation_seconds, val_loss = 0.0, math.nan
    for step in range(steps + 1):
        if step % EVAL_EVERY == 0 or step == steps:
            started = time.perf_counter()
            train_loss, val_loss = sampled_loss(model, train_ids), sampled_loss(model, val_ids)
            evaluation_seconds += time.perf_counter() - started
            print(f"step {step}: train loss {train_loss:.4f}, val loss {val_loss:.4f}", file=sys.stderr)
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        x, y = random_batch(train_ids)
        loss = cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"iter {step}: loss {loss.item():.4f}", file=sys.stderr)
    return model, evaluation_seconds, val_loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", type=Path, required=True, help="a UTF-8 text file; its last 10 %% validates"
    )
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=2000, help="updates; the cosine ends with them")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    text = arguments.text.read_bytes().decode("utf-8")  # not read_text: it would rewrite line ends
    index = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([index[character] for character in text])
    train_ids, val_ids = ids.tensor_split([int(len(ids) * TRAIN_FRACTION)])

    started = time.perf_counter()
    model, evaluation_seconds, sampled = train(len(index), train_ids, val_ids, arguments.steps)
    train_seconds = time.perf_counter() - started

    model.eval()
    result = {
        "name": "nanoGPT CPU recipe (rebuilt)",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(train_seconds, 3),
        "evaluation_seconds": round(evaluation_seconds, 3),  # a part of train_seconds
        "tokens_per_second": round(arguments.steps * BATCH * CONTEXT / (train_seconds - evaluation_seconds)),
        "val_loss_sampled": sampled,  # nanoGPT's own measure, the one it publishes; noisy
        "val_loss_windows": mean_nats(model, val_ids, CONTEXT, CONTEXT),
        "val_loss_sliding": mean_nats(model, val_ids, CONTEXT, CONTEXT // 2),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key}: {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
