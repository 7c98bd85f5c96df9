"""k micro-batches of b windows give the gradient of one batch of k · b, whatever is masked in each: both families."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.data.batch import Origin
from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision
from pellucid.train.state import TrainState
from pellucid.train.step import Updater

CPU = Device("cpu", "for tests", has_bf16=False, can_compile=False, compile_reason="for tests")
FP32 = Precision("fp32", CPU, "for tests")
WINDOWS, LENGTH, SOURCE, VOCABULARY = 8, 8, 6, 32
SIZES = {"vocab_size": VOCABULARY, "d_model": 8, "num_heads": 2, "max_seq_len": 8}
FAMILIES = {
    "decoder": DecoderConfig(**SIZES, num_layers=2),
    "encoder_decoder": EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=1),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def whole(family) -> TensorBatch:
    """8 windows with weights of 0, a half and 1; the second has none, and the last four together little."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> Tensor:
        return torch.from_numpy(rng.integers(0, VOCABULARY, (WINDOWS, length)))

    inputs, targets = ids(LENGTH), ids(LENGTH)
    weights = torch.from_numpy(rng.choice(np.float32([0, 0.5, 1]), (WINDOWS, LENGTH)))
    weights[1] = 0
    weights[4:, 2:] = 0
    if isinstance(family, DecoderConfig):
        return TensorBatch(inputs, targets, weights, Origin.of([]))
    sources = torch.zeros(WINDOWS, SOURCE, dtype=torch.long)
    sources[3:, 4:] = -1  # padding
    return TensorBatch(
        inputs, targets, weights, Origin.of([]), encoder_inputs=ids(SOURCE), encoder_documents=sources
    )


def cut(batch: TensorBatch, count: int) -> list[TensorBatch]:
    fields = ("inputs", "targets", "weights", "encoder_inputs", "encoder_documents")
    present = {name: getattr(batch, name).chunk(count) for name in fields if getattr(batch, name) is not None}
    return [
        TensorBatch(**dict(zip(present, parts, strict=True)), origin=batch.origin)
        for parts in zip(*present.values(), strict=True)
    ]


@pytest.fixture
def gradients_of(family):
    """The mean loss and every gradient, by name, of a batch in its micro-batches, smoothed and with z-loss."""

    def compute(micro_batches):
        model = family.build(seed=3)
        with torch.no_grad():  # gradients of a size at which 1e-6 is little
            for parameter in model.parameters():
                parameter.mul_(15 if parameter.dim() > 1 else 1)
        updater = Updater(
            state=TrainState(model, torch.optim.SGD(model.parameters(), lr=1.0), None),
            model=model,
            loss=LinearCrossEntropy(label_smoothing=0.1, z_loss=0.01),
            precision=FP32,
            grad_clip=1.0,
            recompute="none",
            seed=0,
            window_tokens=LENGTH,
        )
        loss = updater.gradients(micro_batches)
        return loss.item(), {name: p.grad for name, p in model.named_parameters()}

    return compute


@pytest.mark.parametrize("count", [2, 4, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(gradients_of, whole, count):
    micro_batches = cut(whole, count)
    assert len({micro.weights.sum().item() for micro in micro_batches}) > 1
    (loss, expected), (found_loss, found) = gradients_of([whole]), gradients_of(micro_batches)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0.01, name
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6)
