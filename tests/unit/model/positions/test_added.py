"""The schemes that are added to the embeddings, and the one that does nothing."""

import math

import pytest
import torch

from pellucid.model.positions import LearnedPosition, NoPosition, SinusoidalPosition


def test_learned_rows_are_added_by_the_place_of_each_token() -> None:
    position, x = LearnedPosition(4, max_seq_len=9), torch.ones(2, 3, 4)
    places = torch.tensor([[0, 1, 0], [8, 2, 2]])
    found = position.embed(x, places)
    for row in (0, 1):
        for column in range(3):
            assert torch.equal(found[row, column], 1 + position.table[places[row, column]])


def test_sinusoidal_waves_start_at_zero_and_one_and_know_no_last_place() -> None:
    position, x = SinusoidalPosition(), torch.zeros(1, 2, 6, dtype=torch.float64)
    waves = position.embed(x, torch.tensor([0, 10**6]))[0]
    assert waves[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert waves[1, :2].tolist() == pytest.approx([math.sin(1e6), math.cos(1e6)], abs=1e-12)


def test_sinusoidal_waves_of_an_odd_width_leave_the_last_cosine_out() -> None:
    position, places = SinusoidalPosition(), torch.arange(7)
    odd = position.embed(torch.zeros(1, 7, 5, dtype=torch.float64), places)
    assert odd.shape == (1, 7, 5)
    last = torch.sin(places.double() * 10_000.0 ** (-4 / 5))
    torch.testing.assert_close(odd[0, :, 4], last, rtol=0, atol=1e-14)


def test_no_position_leaves_everything_as_it_is() -> None:
    position, x, places = NoPosition(), torch.ones(2, 3, 4), torch.arange(3)
    assert position.embed(x, places) is x
    assert position.angles(places) is None
    assert position.bias(places, places) is None
    assert not position.state_dict()
