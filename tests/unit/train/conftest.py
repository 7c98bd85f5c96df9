"""A model of a few hundred parameters and batches for it: what one update needs."""

import numpy as np
import pytest
import torch

from pellucid.data.batch import Origin
from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy
from pellucid.model import DecoderConfig
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision
from pellucid.train.state import TrainState
from pellucid.train.step import Updater

VOCABULARY = 32
CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")
FP32 = Precision("fp32", CPU, "for tests")


@pytest.fixture
def make_updater():
    """An Updater around a fresh model; by default plain SGD at rate 1, so that a weight moves by its gradient."""

    def make(
        optimizer=None,
        *,
        dropout=0.0,
        scaler=None,
        recompute="none",
        grad_clip=1e9,
        seed=0,
        smoothing=0.0,
        z_loss=0.0,
    ):
        config = DecoderConfig(
            vocab_size=VOCABULARY, d_model=8, num_layers=2, num_heads=2, max_seq_len=8, dropout=dropout
        )
        model = config.build(seed=3)
        built = (optimizer or torch.optim.SGD)(model.parameters(), lr=1.0)
        return Updater(
            state=TrainState(model, built, scaler),
            model=model,
            loss=LinearCrossEntropy(smoothing, z_loss),
            precision=FP32,
            grad_clip=grad_clip,
            recompute=recompute,
            seed=seed,
            window_tokens=8,
        )

    return make


@pytest.fixture
def batch() -> TensorBatch:
    """8 windows of 8 random ids, of which some count half and some not at all."""
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, VOCABULARY, (8, 9)))
    weights = torch.from_numpy(rng.choice(np.float32([0, 0.5, 1]), (8, 8)))
    weights[2] = 0  # a whole window without anything to predict
    return TensorBatch(ids[:, :-1], ids[:, 1:], weights, Origin.of([]))


@pytest.fixture
def split():
    """Cut a batch into k micro-batches."""

    def cut(whole: TensorBatch, count: int) -> list[TensorBatch]:
        parts = zip(*(t.chunk(count) for t in (whole.inputs, whole.targets, whole.weights)), strict=True)
        return [TensorBatch(*tensors, origin=whole.origin) for tensors in parts]

    return cut


@pytest.fixture
def weights_of():
    """A copy of a model's weights, flattened into one vector."""
    return lambda model: torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
