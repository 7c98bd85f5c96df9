"""Where norms and residuals sit, with stand-ins for the parts, so that the arithmetic can be written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pellucid.model import DecoderConfig, DecoderLM, KVCache
from pellucid.model.attention import Attention
from pellucid.model.block import Block
from pellucid.model.cache import CrossCache
from pellucid.model.kernels import AttentionContext
from pellucid.model.masks import Mask

X = torch.arange(6.0, dtype=torch.float64).view(1, 2, 3)
SOURCE = torch.tensor([[[0.5, -1.0, 2.0]]], dtype=torch.float64)
CONTEXT, CROSS_CONTEXT = AttentionContext(), AttentionContext(mask=Mask(is_causal=False))


class Affine(nn.Module):
    """A stand-in for a part: scale · x + shift (+ the source), whatever else it is given."""

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor, *_: object, source: Tensor | None = None, **__: object) -> Tensor:
        y = self.scale * x + self.shift
        return y if source is None else y + source


class WithSideLoss(Affine):
    def forward(self, x: Tensor, *_: object, **__: object) -> tuple[Tensor, dict]:
        return super().forward(x), {"balance": (torch.tensor(3.0), torch.tensor(2.0))}


def numbered_norms() -> Callable[[], nn.Module]:
    """Each norm adds another number: 1, 10, 100, … in the order in which the block makes them."""
    exponents = iter(range(9))
    return lambda: Affine(1, 10.0 ** next(exponents))


def block(layout: str, *, reads_source: bool = False) -> Block:
    """Attention doubles, cross-attention takes half and adds the source, the feed-forward layer triples."""
    cross = Affine(0.5) if reads_source else None
    return Block(Affine(2), Affine(3), numbered_norms(), layout=layout, cross_attention=cross)


def run(module: Block, **parts: object) -> Tensor:
    y, auxiliary = module(X, CONTEXT, **parts)
    assert auxiliary == {}
    return y


def test_pre_norm_normalises_what_each_branch_reads_and_never_the_stream() -> None:
    x = X + 2 * (X + 1)
    assert torch.equal(run(block("pre_norm")), x + 3 * (x + 10))


def test_post_norm_normalises_the_stream_after_each_branch() -> None:
    x = (X + 2 * X) + 1
    assert torch.equal(run(block("post_norm")), (x + 3 * x) + 10)


def test_sandwich_norm_normalises_what_each_branch_reads_and_what_it_adds() -> None:
    # made in this order: before attention, after it, before the feed-forward layer, after it
    x = X + (2 * (X + 1) + 10)
    assert torch.equal(run(block("sandwich_norm")), x + (3 * (x + 100) + 1000))


def test_parallel_branches_read_one_normalised_input() -> None:
    assert torch.equal(run(block("parallel")), X + 2 * (X + 1) + 3 * (X + 1))


def test_cross_attention_stands_between_the_two_in_every_layout() -> None:
    given = {"source": SOURCE, "source_context": CROSS_CONTEXT}

    x = X + 2 * (X + 1)
    x = x + (0.5 * (x + 10) + SOURCE)
    assert torch.equal(run(block("pre_norm", reads_source=True), **given), x + 3 * (x + 100))

    x = (X + 2 * X) + 1
    x = (x + (0.5 * x + SOURCE)) + 10
    assert torch.equal(run(block("post_norm", reads_source=True), **given), (x + 3 * x) + 100)

    x = X + (2 * (X + 1) + 10)
    x = x + ((0.5 * (x + 100) + SOURCE) + 1000)
    x = x + (3 * (x + 1e4) + 1e5)
    assert torch.equal(run(block("sandwich_norm", reads_source=True), **given), x)

    h = X + 1
    x = X + (2 * h + (0.5 * h + SOURCE) + 3 * h)
    assert torch.equal(run(block("parallel", reads_source=True), **given), x)


@pytest.mark.parametrize(
    ("layout", "count", "cross_count"),
    [("pre_norm", 2, 3), ("post_norm", 2, 3), ("sandwich_norm", 4, 6), ("parallel", 1, 1)],
)
def test_no_layout_has_a_norm_that_it_does_not_use(layout: str, count: int, cross_count: int) -> None:
    for reads_source, wanted in ((False, count), (True, cross_count)):
        names = [name for name, _ in block(layout, reads_source=reads_source).named_children()]
        assert sum(name.endswith("norm") for name in names) == wanted


@pytest.mark.parametrize("layout", ["pre_norm", "post_norm", "sandwich_norm", "parallel"])
def test_side_losses_of_the_feed_forward_layer_are_passed_on(layout: str) -> None:
    def norm() -> nn.Module:
        return Affine(1)

    with_loss, without = (
        Block(Affine(2), part, norm, layout=layout) for part in (WithSideLoss(3), Affine(3))
    )
    y, auxiliary = with_loss(X, CONTEXT)
    assert torch.equal(y, run(without))
    assert {name: (float(a), float(b)) for name, (a, b) in auxiliary.items()} == {"balance": (3.0, 2.0)}


def test_a_block_that_reads_a_source_says_when_there_is_none() -> None:
    with pytest.raises(ValueError, match="this block reads an encoded source; give `source` and"):
        block("pre_norm", reads_source=True)(X, CONTEXT)


@pytest.mark.parametrize("layout", ["pre_norm", "post_norm", "sandwich_norm", "parallel"])
@torch.no_grad()
def test_the_cached_source_is_read_from_this_blocks_layer(layout: str) -> None:
    torch.manual_seed(0)
    cross = Attention(3, num_heads=1, num_kv_heads=1, head_dim=2).double()
    module = Block(Affine(2), Affine(3), lambda: Affine(1, 1), layout=layout, cross_attention=cross).double()
    k, v = cross.keys_and_values(SOURCE, CROSS_CONTEXT)
    cache = KVCache.allocate(
        num_layers=3,
        batch_size=1,
        num_kv_heads=1,
        max_length=4,
        head_dim=2,
        device="cpu",
        dtype=torch.float64,
    )
    cache.cross = CrossCache(torch.stack([k + 1, k, k - 1]), torch.stack([v + 1, v, v - 1]), None)
    expected, _ = module(X, CONTEXT, source=SOURCE, source_context=CROSS_CONTEXT)
    cached, _ = module(X, CONTEXT, source_context=CROSS_CONTEXT, cache=cache, layer=1)
    assert torch.equal(cached, expected)
    other, _ = module(X, CONTEXT, source_context=CROSS_CONTEXT, cache=cache, layer=2)
    assert not torch.allclose(other, expected)


def test_dropout_falls_on_what_each_branch_adds_and_never_on_the_stream() -> None:
    module = Block(Affine(0, 1), Affine(0, 1), lambda: Affine(1), dropout=0.25)
    x = torch.full((10, 20, 50), 5.0)
    assert torch.equal(module.eval()(x, CONTEXT)[0], x + 2)
    torch.manual_seed(0)
    added = (module.train()(x, CONTEXT)[0] - x) * 0.75  # each kept feature is scaled by 1 / (1 - 0.25)
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
