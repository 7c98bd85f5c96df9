"""The chunked loss against torch's own cross-entropy over all logits at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.losses import LinearCrossEntropy, linear_cross_entropy, token_choices, token_losses
from pellucid.model import Head
from pellucid.runtime.device import Machine

N, D, V = 23, 8, 37


class Case:
    """States, table, targets and weights, drawn; some weights are 0 and some are not whole.

    The table has `padding` rows beyond the vocabulary, which are drawn too, so that they would be noticed.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
        *,
        padding: int = 0,
        softcap: float | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.states = torch.randn(N, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        table = torch.randn(V + padding, D, generator=generator, dtype=torch.float64)
        self.table = table.to(dtype).requires_grad_()
        self.targets = torch.randint(V, (N,), generator=generator)
        self.weights = torch.rand(N, generator=generator, dtype=torch.float64).to(dtype)
        self.weights[::4] = 0
        self.weights[1::4] = 1
        self.softcap = softcap

    @property
    def head(self) -> Head:
        return Head(self.table, V, self.softcap)

    def run(self, loss: LinearCrossEntropy, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss sum, weight, and the gradients of `scale` times the loss."""
        sums = loss(self.states, self.head, self.targets, self.weights)
        gradients = torch.autograd.grad(scale * sums.objective, (self.states, self.table))
        return sums.objective.detach(), sums.weight, *gradients

    def logits(self) -> Tensor:
        """By the formula, all at once."""
        logits = self.states @ self.table[:V].T
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def reference(
        self, label_smoothing: float = 0.0, z_loss: float = 0.0, scale: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = self.logits()
        losses = F.cross_entropy(logits, self.targets, reduction="none", label_smoothing=label_smoothing)
        losses = losses + z_loss * logits.logsumexp(dim=-1).square()
        total = (self.weights * losses).sum()
        gradients = torch.autograd.grad(scale * total, (self.states, self.table))
        return total.detach(), self.weights.sum(), *gradients


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tokens a chunk: four whole chunks of the 23 tokens and a rest of three. Four ids a tile, with a rest."""
    cut(monkeypatch, tokens=5, ids=4)


def cut(monkeypatch: pytest.MonkeyPatch, *, tokens: int, ids: int, element_bytes: int = 8) -> None:
    """Have chunks of so many tokens, and tiles of so many ids."""
    monkeypatch.setattr(linear_cross_entropy, "CHUNK_BYTES", element_bytes * V * tokens)
    monkeypatch.setitem(LinearCrossEntropy.__init__.__kwdefaults__, "tile_ids", ids)


def assert_all_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_equals_torch(label_smoothing: float, z_loss: float, dtype: torch.dtype, tolerance: float) -> None:
    case = Case(dtype)
    found = case.run(LinearCrossEntropy(label_smoothing, z_loss), scale=0.37)
    assert_all_close(found, case.reference(label_smoothing, z_loss, scale=0.37), tolerance)
    assert all(tensor.dtype == dtype for tensor in found)


@pytest.mark.parametrize("chunk", [N, 5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("padding", "softcap"), [(3, None), (0, 1.5), (3, 1.5), (27, 30.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_padded_and_capped_logits_equal_torch(
    padding: int,
    softcap: float | None,
    label_smoothing: float,
    chunk: int,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut(monkeypatch, tokens=chunk, ids=4 if chunk < N else 1024, element_bytes=dtype.itemsize)
    case = Case(dtype, padding=padding, softcap=softcap)
    found = case.run(LinearCrossEntropy(label_smoothing), scale=0.37)
    assert_all_close(found, case.reference(label_smoothing, scale=0.37), tolerance)
    table_gradient = found[3]
    assert table_gradient.shape == case.table.shape
    assert not table_gradient[V:].any()
    plain = Case(dtype, padding=padding).run(LinearCrossEntropy(label_smoothing))
    assert softcap is None or not torch.allclose(plain[0], found[0], rtol=1e-3)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("padding", "softcap"), [(0, None), (3, None), (0, 1.5), (3, 1.5)])
@pytest.mark.usefixtures("small_chunks")
def test_has_the_gradient_of_its_own_forward(
    padding: int, softcap: float | None, label_smoothing: float
) -> None:
    """By central differences; `gradcheck` goes back twice, and the gradients are scaled in place on the first."""
    case, loss, step = Case(padding=padding, softcap=softcap), LinearCrossEntropy(label_smoothing), 1e-5

    def total(states: Tensor, table: Tensor) -> Tensor:
        return loss(states, Head(table, V, softcap), case.targets, case.weights).objective

    gradients = torch.autograd.grad(total(case.states, case.table), (case.states, case.table))
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        way = [torch.empty_like(g).normal_(generator=generator) for g in gradients]
        with torch.no_grad():
            ahead = total(case.states + step * way[0], case.table + step * way[1])
            behind = total(case.states - step * way[0], case.table - step * way[1])
        slope = sum((g * w).sum() for g, w in zip(gradients, way, strict=True))
        torch.testing.assert_close((ahead - behind) / (2 * step), slope, rtol=1e-7, atol=1e-7)


def test_equals_the_plain_sum_where_every_weight_is_one() -> None:
    case = Case()
    case.weights.fill_(1)
    total, weight, *gradients = case.run(LinearCrossEntropy())
    plain = F.cross_entropy(case.states @ case.table.T, case.targets, reduction="sum")
    torch.testing.assert_close(total, plain.detach(), rtol=1e-12, atol=1e-10)
    assert_all_close(tuple(gradients), torch.autograd.grad(plain, (case.states, case.table)), 1e-10)
    assert weight == N


def test_a_token_of_weight_zero_has_no_gradient_whatever_its_target() -> None:
    case, other = Case(), Case()
    other.targets[::4] = (other.targets[::4] + 1) % V
    found = case.run(LinearCrossEntropy(0.1))
    assert_all_close(other.run(LinearCrossEntropy(0.1)), found, 0)
    states_gradient = found[2]
    assert (states_gradient[::4] == 0).all()
    assert (states_gradient[1::4] != 0).any(dim=1).all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.usefixtures("small_chunks")
def test_several_chunks_equal_torch(label_smoothing: float) -> None:
    case = Case()
    assert_all_close(case.run(LinearCrossEntropy(label_smoothing)), case.reference(label_smoothing), 1e-10)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("ids", [1, 3, V - 1, V, 1024])
@pytest.mark.parametrize("tokens", [N, 5, 1])
def test_chunks_and_tiles_of_any_size_give_the_same(
    tokens: int, ids: int, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Case().reference(0.1, z_loss)
    cut(monkeypatch, tokens=tokens, ids=ids)
    assert_all_close(Case().run(LinearCrossEntropy(0.1, z_loss)), expected, 1e-10)


def test_the_cap_the_smoothing_and_the_z_loss_go_together(small_chunks: None) -> None:
    case = Case(padding=3, softcap=1.5)
    assert_all_close(case.run(LinearCrossEntropy(0.1, 0.01)), case.reference(0.1, 0.01), 1e-10)


@pytest.mark.parametrize("vocab_size", [1, 5, 16, 21])
def test_a_vocabulary_smaller_than_a_tile_is_a_tile(vocab_size: int) -> None:
    states = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    table = torch.randn(vocab_size, D, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(vocab_size, (N,)), torch.ones(N, dtype=torch.float64)
    found = LinearCrossEntropy(tile_ids=1024)(states, Head(table, vocab_size), targets, weights).objective
    expected = F.cross_entropy(states @ table.T, targets, reduction="sum")
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        *(torch.autograd.grad(loss, (states, table)) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_no_positions_have_no_loss_and_no_gradient() -> None:
    states, table = torch.zeros(0, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    nothing = torch.zeros(0)
    sums = LinearCrossEntropy(tile_ids=4)(states, Head(table, V), nothing.long(), nothing)
    of_states, of_table = torch.autograd.grad(sums.objective, (states, table))
    assert (sums.objective.item(), sums.weight.item(), of_states.numel()) == (0, 0, 0)
    assert of_table.count_nonzero() == 0


def test_no_more_logits_than_a_chunk_and_a_tile_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, tokens=5, ids=4)
    seen: list[tuple[int, ...]] = []
    inner = linear_cross_entropy._gradient

    def counting(exponentials: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(exponentials.flatten(0, 1).shape))
        return inner(exponentials, *rest)

    loss = LinearCrossEntropy()
    loss._kernels = linear_cross_entropy._Kernels(gradient=counting)
    Case().run(loss)
    tiles = [min(4, V - first) for first in range(0, V, 4)]
    assert seen == [(ids, tokens) for tokens in (5, 5, 5, 5, 3) for ids in tiles]


def test_what_is_told_is_without_smoothing_and_z_loss() -> None:
    case = Case()
    sums = LinearCrossEntropy(0.3, 0.01)(case.states, case.head, case.targets, case.weights)
    torch.testing.assert_close(sums.cross_entropy, case.reference()[0], rtol=1e-12, atol=1e-12)
    assert not sums.cross_entropy.requires_grad
    assert sums.objective > sums.cross_entropy


def test_a_vocabulary_larger_than_a_chunk_goes_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "CHUNK_BYTES", 1)
    case = Case()
    assert_all_close(case.run(LinearCrossEntropy()), case.reference(), 1e-10)


@pytest.mark.parametrize(
    ("label_smoothing", "padding", "softcap"), [(0.0, 0, None), (0.1, 0, None), (0.0, 3, 5.0)]
)
def test_bf16_autocast_is_within_bf16_rounding(
    label_smoothing: float, padding: int, softcap: float | None
) -> None:
    """Products of bf16 numbers have an error of 2^-8 a factor; two more roundings of 2^-9 are small beside."""
    case = Case(torch.float32, padding=padding, softcap=softcap)
    exact = Case(padding=padding, softcap=softcap).reference(label_smoothing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.run(LinearCrossEntropy(label_smoothing))
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert abs(found[0] / exact[0] - 1) < 5e-3
    for gradient, expected in zip(found[2:], exact[2:], strict=True):
        error = (gradient.double() - expected).norm() / expected.norm()
        assert 1e-6 < error < 2**-6  # narrow indeed, and no worse than narrow


def test_bf16_autocast_comes_as_near_as_torch_under_the_same_autocast() -> None:
    exact = Case().reference()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = Case(torch.float32).run(LinearCrossEntropy()), Case(torch.float32).reference()
    for our, their, expected in zip(ours[2:], theirs[2:], exact[2:], strict=True):
        assert (our.double() - expected).norm() < 2 * (their.double() - expected).norm()


@pytest.mark.usefixtures("small_chunks")
def test_a_table_that_is_also_the_embedding_gets_both_gradients() -> None:
    ids, targets = torch.randint(V, (2, N), generator=torch.Generator().manual_seed(1))
    start = Case().table.detach()

    def gradient(chunked: bool) -> Tensor:
        table = nn.Parameter(start.clone())
        states = torch.tanh(F.embedding(ids, table))
        if chunked:
            ones = torch.ones(N, dtype=torch.float64)
            loss = LinearCrossEntropy()(states, Head(table, V), targets, ones).objective
        else:
            loss = F.cross_entropy(states @ table.T, targets, reduction="sum")
        (loss / 7).backward()
        assert table.grad is not None
        return table.grad

    torch.testing.assert_close(gradient(chunked=True), gradient(chunked=False), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("frozen", ["states", "table", "both"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    case, expected = Case(), Case().reference()
    if frozen != "table":
        case.states.requires_grad_(False)
    if frozen != "states":
        case.table.requires_grad_(False)
    total = LinearCrossEntropy()(case.states, case.head, case.targets, case.weights).objective
    torch.testing.assert_close(total.detach(), expected[0], rtol=1e-12, atol=1e-12)
    assert total.requires_grad == (frozen != "both")
    if frozen != "both":
        total.backward()
        for tensor, gradient in ((case.states, expected[2]), (case.table, expected[3])):
            if tensor.requires_grad:
                torch.testing.assert_close(tensor.grad, gradient, rtol=1e-10, atol=1e-10)
            else:
                assert tensor.grad is None


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_micro_batches_of_ragged_weight_sum_to_one_batch(label_smoothing: float) -> None:
    """(sum, weight) of the parts add up, and so do gradients when each part is divided by the whole weight."""
    case, loss = Case(), LinearCrossEntropy(label_smoothing)
    case.weights[:9] = 0  # a part with nothing in it
    sums = loss(case.states, case.head, case.targets, case.weights)
    whole, weight = sums.objective, sums.weight
    expected = torch.autograd.grad(whole / weight, (case.states, case.table))
    total, total_weight = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for start, end in ((0, 4), (4, 9), (9, 10), (10, N)):
        part = slice(start, end)
        sums = loss(case.states[part], case.head, case.targets[part], case.weights[part])
        (sums.objective / weight).backward()
        total, total_weight = total + sums.objective.detach(), total_weight + sums.weight
    assert_all_close((total, total_weight), (whole.detach(), weight), 1e-12)
    assert case.states.grad is not None
    assert case.table.grad is not None
    assert_all_close((case.states.grad, case.table.grad), expected, 1e-12)


def test_large_logits_stay_finite() -> None:
    case = Case(torch.float32)
    with torch.no_grad():
        case.states.mul_(1e4)
    assert all(tensor.isfinite().all() for tensor in case.run(LinearCrossEntropy(0.1)))


@pytest.mark.skipif(Machine.probe().compiler is None, reason="needs a C++ compiler")
@pytest.mark.slow  # the C++ compiler takes its time
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own, when it first compiles
# A tile is one group of 4 ids, or nine of them; the last id is a tile by itself.
@pytest.mark.parametrize("ids", [4, 36])
@pytest.mark.parametrize(
    ("label_smoothing", "z_loss", "padding", "softcap"),
    [(0.0, 0.0, 0, None), (0.1, 0.01, 0, None), (0.1, 0.01, 3, 1.5)],
)
def test_compiled_equals_eager(
    ids: int,
    label_smoothing: float,
    z_loss: float,
    padding: int,
    softcap: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut(monkeypatch, tokens=10, ids=ids, element_bytes=4)
    case = Case(torch.float32, padding=padding, softcap=softcap)
    eager = case.run(LinearCrossEntropy(label_smoothing, z_loss))
    compiled = case.run(LinearCrossEntropy(label_smoothing, z_loss, compiled=True))
    assert_all_close(compiled, eager, 1e-5)


@pytest.mark.parametrize("chunk", [N, 5])
@pytest.mark.parametrize(("padding", "softcap"), [(0, None), (3, None), (3, 1.5)])
def test_token_losses_equal_torch(
    chunk: int, padding: int, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_cross_entropy, "_SCORING_BYTES", 4 * (V + padding) * chunk)
    case = Case(torch.float32, padding=padding, softcap=softcap)
    with torch.no_grad():
        losses = token_losses(case.states, case.head, case.targets)
        expected = F.cross_entropy(case.logits(), case.targets, reduction="none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("padding", "softcap"), [(0, None), (3, 1.5)])
def test_token_losses_are_what_the_loss_sums(padding: int, softcap: float | None) -> None:
    case = Case(torch.float32, padding=padding, softcap=softcap)
    total = LinearCrossEntropy()(case.states, case.head, case.targets, case.weights).objective
    losses = token_losses(case.states, case.head, case.targets)
    torch.testing.assert_close((losses * case.weights).sum(), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [N, 5])
def test_token_choices_are_the_same_losses_and_what_is_likeliest(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_cross_entropy, "_SCORING_BYTES", 4 * (V + 3) * chunk)
    case = Case(torch.float32, padding=3, softcap=1.5)
    best = case.logits().detach().argmax(dim=-1)
    targets = torch.where(torch.arange(N) % 2 == 0, best, (best + 1) % V)
    losses, chosen = token_choices(case.states, case.head, targets)
    assert torch.equal(losses, token_losses(case.states, case.head, targets))
    assert torch.equal(chosen, torch.arange(N) % 2 == 0)


def test_token_losses_under_autocast_are_float32() -> None:
    case = Case(torch.float32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses = token_losses(case.states, case.head, case.targets)
    exact = F.cross_entropy(case.states.double() @ case.table.double().T, case.targets, reduction="none")
    assert losses.dtype == torch.float32
    assert (losses - exact).abs().max() < 0.1  # logits of size 10 in bf16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cuda_autocast_is_within_rounding(dtype: torch.dtype) -> None:
    case, exact = Case(torch.float32), Case().reference(0.1)
    for name in ("states", "table", "targets", "weights"):
        tensor = getattr(case, name).detach().cuda()
        setattr(case, name, tensor.requires_grad_(tensor.is_floating_point() and name != "weights"))
    with torch.autocast("cuda", dtype=dtype):
        found = case.run(LinearCrossEntropy(0.1))
    for tensor, expected in zip((found[0], *found[2:]), (exact[0], *exact[2:]), strict=True):
        assert (tensor.cpu().double() - expected).norm() / expected.norm() < 2**-6
