"""torch.compile takes each model whole, without a break in the graph, and it computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pellucid.runtime.device import Machine

FAMILIES = pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])


@pytest.fixture(autouse=True)
def _starts_anew() -> None:
    torch._dynamo.reset()  # every model is compiled through the same methods, and recompiling has a limit


def equals_eager(case, backend: str, dtype: torch.dtype = torch.float64, tolerance: float = 1e-12) -> None:
    model, ids = case.build(dtype), case.ids()

    def run() -> tuple[Tensor, dict[str, Tensor | None]]:
        if case.can_train:
            return case.loss_and_gradients(model)
        with torch.no_grad():
            return case.logits(model, ids), {}

    eager = run()
    model.hidden = torch.compile(model.hidden, backend=backend, fullgraph=True)
    torch.testing.assert_close(run(), eager, rtol=tolerance, atol=tolerance)


def test_equals_eager(very_few) -> None:
    equals_eager(very_few.with_layers(1), "aot_eager")


@pytest.mark.slow  # the same, each change alone: minutes
def test_with_each_change_alone_equals_eager(option) -> None:
    equals_eager(option.with_layers(1), "aot_eager")  # a block is a block, and compiling is slow


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own look at it
@FAMILIES
def test_a_block_at_a_time_in_training_equals_eager(changes, family: str) -> None:
    """As `pellucid train` compiles, with padding, recomputed activations and no dropout."""
    case = changes.case(family, {})
    documents = torch.tensor([[-1] * 3 + [0] * 9, [0] * 5 + [1] * 7])
    model = case.build().train()
    eager = case.loss_and_gradients(model, documents=documents)
    for block in model.all_blocks:
        block.compile(backend="aot_eager", dynamic=False, fullgraph=True)
    for recompute in ("none", "full"):
        found = case.loss_and_gradients(model, documents=documents, recompute=recompute)
        torch.testing.assert_close(found, eager, rtol=0, atol=1e-12)


@FAMILIES
@torch.no_grad()
def test_with_a_cache_equals_eager(changes, family: str) -> None:
    """Lengths that grow are traced once more as unknown, not once each."""
    case = changes.case(family, {"attention": {"window": 3}}).with_layers(1)
    model, ids = case.build(), case.ids(2, 14)
    expected = case.logits(model, ids)
    model.hidden = torch.compile(model.hidden, backend="aot_eager", fullgraph=True)
    cache, source, pieces = model.new_cache(2), case.source(), []
    for part in ids.split([6, 1, 1, 6], dim=1):
        pieces.append(model.head(model.hidden(part, cache=cache, **source).states))
        source = {}
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-12)


@pytest.mark.skipif(Machine.probe().compiler is None, reason="needs a C++ compiler")
@pytest.mark.slow  # the C++ compiler takes its time
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own, when it first compiles
@FAMILIES
def test_compiled_by_inductor_equals_eager(changes, family: str) -> None:
    equals_eager(changes.case(family, {}).with_layers(1), "inductor", torch.float32, 1e-5)
