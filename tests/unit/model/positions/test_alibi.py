import pytest
import torch

from pellucid.model.positions import AlibiPosition

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("num_heads", "halvings"),
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_are_those_of_the_authors_code(num_heads: int, halvings: list[float]) -> None:
    expected = 2.0 ** -torch.tensor(halvings, dtype=torch.float64)
    torch.testing.assert_close(AlibiPosition(num_heads).slopes(CPU), expected, rtol=1e-15, atol=0)


def test_the_bias_falls_with_the_distance_to_what_lies_behind() -> None:
    bias = AlibiPosition(2).bias(torch.tensor([0, 3, 9]), torch.arange(10))
    assert bias.shape == (2, 3, 10)
    for head, slope in enumerate((1 / 16, 1 / 256)):
        for row, query in enumerate((0, 3, 9)):
            expected = [-slope * (query - key) for key in range(query + 1)]
            assert bias[head, row, : query + 1].tolist() == expected


def test_an_encoder_looks_both_ways() -> None:
    places = torch.arange(10)
    bias = AlibiPosition(2, is_causal=False).bias(places, places)
    assert torch.equal(bias, bias.mT)
    assert torch.equal(bias.tril(), AlibiPosition(2).bias(places, places).tril())
