"""Recomputing activations changes memory and time, and no bit of the loss or of any gradient."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

HOWS = ("full", "selective")


def test_changes_no_bit(case) -> None:
    """In training: where the config has dropout, the recomputed activations have the same."""
    if not case.can_train:
        return
    model = case.build().train()
    loss, gradients = case.loss_and_gradients(model)
    for how in HOWS:
        again, recomputed = case.loss_and_gradients(model, recompute=how)
        assert torch.equal(again, loss), how
        for name, gradient in gradients.items():
            assert torch.equal(recomputed[name], gradient), (how, name)


@pytest.mark.parametrize("how", HOWS)
def test_changes_no_bit_under_autocast(few, how: str) -> None:
    if not few.can_train:
        return
    model = few.build(torch.float32).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = few.loss_and_gradients(model)
    with torch.autocast(
        "cpu", dtype=torch.bfloat16
    ):  # its own, since autocast keeps weights that it has cast
        again, recomputed = few.loss_and_gradients(model, recompute=how)
    assert torch.equal(again, loss)
    for name, gradient in gradients.items():
        assert torch.equal(recomputed[name], gradient), name


@pytest.mark.parametrize("how", HOWS)
def test_padded_and_packed_rows_change_no_bit(windowed, how: str) -> None:
    model = windowed.build().train()
    documents = torch.tensor([[-1] * 3 + [0] * 9, [0] * 5 + [1] * 7])
    rows = {"documents": documents}
    if windowed.reads_source:
        rows["encoder_documents"] = torch.tensor([[0] * 5 + [-1] * 2, [0] * 3 + [1] * 4])
    loss, gradients = windowed.loss_and_gradients(model, **rows)
    again, recomputed = windowed.loss_and_gradients(model, recompute=how, **rows)
    assert torch.equal(again, loss)
    for name, gradient in gradients.items():
        assert torch.equal(recomputed[name], gradient), name


class Counting(TorchDispatchMode):
    """Counts the operations that run, by the name that torch gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def operations(case, how: str) -> dict[str, int]:
    with Counting() as counting:
        case.loss_and_gradients(case.build().train(), recompute=how)
    return counting.counts


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_full_computes_again_and_selective_all_but_matrix_products(changes, family: str) -> None:
    case = changes.case(family, {})
    none, full, selective = (operations(case, how) for how in ("none", *HOWS))
    products = sum(none.get(name, 0) for name in ("mm", "addmm", "bmm"))
    assert sum(full.get(name, 0) for name in ("mm", "addmm", "bmm")) > products
    assert sum(selective.get(name, 0) for name in ("mm", "addmm", "bmm")) == products
    attention = [name for name in none if "scaled_dot_product" in name and "backward" not in name]
    assert attention
    for name in attention:
        assert full[name] == 2 * none[name]
        assert selective[name] == none[name]
    for counts in (full, selective):
        assert counts["silu"] == 2 * none["silu"]
