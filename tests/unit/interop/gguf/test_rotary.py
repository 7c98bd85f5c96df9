"""The two layouts of RoPE's pairs, against a hand computation."""

import torch

from pellucid.interop.gguf.rotary import interleave, separate
from pellucid.model.positions import RotaryPosition


def test_two_heads_of_four_rows_by_hand():
    rows = torch.tensor([[0], [1], [2], [3], [10], [11], [12], [13]])
    assert interleave(rows, 2).flatten().tolist() == [0, 2, 1, 3, 10, 12, 11, 13]


def test_separate_undoes_it():
    rows = torch.arange(48).reshape(24, 2)
    assert torch.equal(separate(interleave(rows, 3), 3), rows)
    assert not torch.equal(interleave(rows, 3), rows)


def test_neighbours_of_interleaved_rows_turn_as_our_halves_do():
    rows, x = torch.randn(8, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    position = RotaryPosition(8)
    place = torch.tensor([7])
    ours = position.rotate((rows @ x)[None, None, None, :], position.angles(place))[0, 0, 0]

    turned = []  # the paper's own layout: neighbours are a pair
    pairs = (interleave(rows, 1) @ x).reshape(4, 2).tolist()
    for (a, b), frequency in zip(pairs, position.frequencies(place.device), strict=True):
        c, s = torch.cos(7 * frequency), torch.sin(7 * frequency)
        turned += [a * c - b * s, a * s + b * c]
    assert torch.allclose(separate(torch.stack(turned)[:, None], 1)[:, 0], ours, atol=1e-12)
