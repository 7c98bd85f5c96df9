"""Updates on batches whose micro-batches are dealt out to all processes: run alone, or by each of them.

python equal_shares.py OUT, with torchrun's variables: the main process writes what came of every case.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from pellucid.data.batch import Origin
from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.feedforward import MoEConfig
from pellucid.runtime.device import Device
from pellucid.runtime.distributed import ALONE, Processes, from_environment
from pellucid.runtime.precision import Precision
from pellucid.train.state import TrainState
from pellucid.train.step import Updater

VOCABULARY, MICRO_BATCHES, WINDOWS, LENGTH, STEPS = 32, 4, 2, 8, 4
CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")
SIZES = {"vocab_size": VOCABULARY, "d_model": 16, "num_heads": 2, "max_seq_len": LENGTH, "dropout": 0.1}
CASES = {
    "decoder": DecoderConfig(**SIZES, num_layers=2),
    "encoder_decoder": EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1),
    "side losses": DecoderConfig(**SIZES, num_layers=1, feed_forward=MoEConfig()),
}


def micro_batch(number: int, *, has_source: bool) -> TensorBatch:
    """Random ids; the weights of one micro-batch add up to much more than those of the next."""
    draw = np.random.default_rng(number)
    ids = torch.from_numpy(draw.integers(0, VOCABULARY, (WINDOWS, LENGTH + 1)))
    weights = torch.from_numpy(draw.choice(np.float32([0, 0.5, 1]), (WINDOWS, LENGTH)))
    weights[:, 1 + number % LENGTH :] = 0
    return TensorBatch(
        ids[:, :-1],
        ids[:, 1:],
        weights,
        Origin.of([]),
        encoder_inputs=ids[:, :-1].flip(1) if has_source else None,
    )


def train(case: str, processes: Processes) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses and gradient norms of every step, the weights after the last)."""
    model = CASES[case].build(seed=3).train()
    updater = Updater(
        state=TrainState(model, torch.optim.AdamW(model.parameters(), lr=1.0), None),
        model=model,
        loss=LinearCrossEntropy(0.1),
        precision=Precision("fp32", CPU, "for tests"),
        grad_clip=0.5,
        recompute="none",
        seed=0,
        window_tokens=LENGTH,
        processes=processes,
    )
    share = MICRO_BATCHES // processes.world
    reported = []
    for step in range(STEPS):
        first = step * MICRO_BATCHES + processes.rank * share
        batch = [micro_batch(first + i, has_source=case == "encoder_decoder") for i in range(share)]
        outcome = updater(batch, 1e-2)
        reported.append((outcome.loss, outcome.grad_norm))
    assert updater.state.tokens == STEPS * MICRO_BATCHES * WINDOWS * LENGTH
    return torch.tensor(reported), torch.cat([p.detach().flatten() for p in model.parameters()])


def train_all(processes: Processes = ALONE) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {case: train(case, processes) for case in CASES}


if __name__ == "__main__":
    with from_environment("cpu") as together:
        torch.save(train_all(together), Path(sys.argv[1]) / f"rank-{together.rank}.pt")
