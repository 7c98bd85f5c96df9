import pytest
import torch
from torch import Tensor, nn

from pellucid.model import DecoderConfig, DecoderLM
from pellucid.model.block import Block
from pellucid.model.positions import Position


class Affine(nn.Module):
    """A stand-in for a part: scale · x + shift, whatever else it is given."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.scale * x + self.shift


def test_each_branch_reads_the_normalised_stream_and_adds_to_it() -> None:
    block = Block(Affine(2, 0), Affine(3, 0), attention_norm=Affine(1, 1), feed_forward_norm=Affine(1, 10))
    x = torch.arange(6.0).view(1, 2, 3)
    after_attention = x + 2 * (x + 1)
    assert torch.equal(block(x, Position()), after_attention + 3 * (after_attention + 10))


def test_dropout_falls_on_what_each_branch_adds_and_never_on_the_stream() -> None:
    ones = [Affine(0, 1) for _ in range(4)]
    block, x = Block(*ones, dropout=0.25), torch.full((10, 20, 50), 5.0)
    assert torch.equal(block.eval()(x, Position()), x + 2)
    torch.manual_seed(0)
    added = (block.train()(x, Position()) - x) * 0.75  # each kept feature is scaled by 1 / (1 - 0.25)
    shares = [(added - branches).abs().lt(1e-4).double().mean().item() for branches in (0, 1, 2)]
    assert shares == pytest.approx([1 / 16, 6 / 16, 9 / 16], abs=0.02)


def test_dropout_falls_on_the_embeddings() -> None:
    model = DecoderLM(DecoderConfig(vocab_size=31, d_model=64, num_layers=1, dropout=0.25))
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    ids = torch.arange(31)[None]
    torch.manual_seed(0)
    model(ids)
    model.eval()(ids)
    assert (entered[0] == 0).double().mean().item() == pytest.approx(0.25, abs=0.05)
    kept = entered[0] != 0
    torch.testing.assert_close(entered[0][kept], entered[1][kept] / 0.75)
    assert torch.equal(entered[1], model.embedding(ids))
