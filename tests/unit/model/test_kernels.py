"""Every kernel is one function: softmax(cap(q kᵀ · scale) + bias + mask) v, also where a query sees no key."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.model import kernels
from pellucid.model.attention import AttentionConfig
from pellucid.model.kernels import AttentionContext, attend, attention_weights, wants_blocks
from pellucid.model.kernels.short import is_faster, short_attention
from pellucid.model.masks import Mask
from pellucid.model.stack import attention_context

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS, HEAD_DIM, KEYS, SCALE = 4, 6, 9, 0.4

# Packed with padding before it; padding after; the last queries' document has no key at all.
KEY_DOCUMENTS = torch.tensor([[-1, -1, 0, 0, 0, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, -1, -1, -1], [0] * 9])
QUERY_DOCUMENTS = torch.where(
    torch.tensor([[False], [False], [True]]) & (torch.arange(9) > 6), 7, KEY_DOCUMENTS
)
PREFIX_LENGTHS = torch.tensor([0, 4, 9])

MASKS = {
    "causal": {},
    "bidirectional": {"is_causal": False},
    "causal window": {"window": 3},
    "bidirectional window": {"is_causal": False, "window": 2},
    "prefix": {"prefix_lengths": PREFIX_LENGTHS},
    "prefix and window": {"prefix_lengths": PREFIX_LENGTHS, "window": 3},
    "documents": {"documents": True},
    "bidirectional documents": {"is_causal": False, "documents": True},
    "everything": {"documents": True, "prefix_lengths": PREFIX_LENGTHS, "window": 4},
}
BIASES = {"no bias": None, "bias of all rows": (HEADS,), "bias of each row": (3, HEADS)}

masks = pytest.mark.parametrize("mask", MASKS)
biases = pytest.mark.parametrize("bias", BIASES)
caps = pytest.mark.parametrize("softcap", [None, 1.5])
groups = pytest.mark.parametrize("kv_heads", [4, 2, 1])


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=torch.float64).normal_(generator=generator).to(dtype)


def draw_qkv(
    kv_heads: int, queries: int = KEYS, keys: int = KEYS, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    q = draw(3, HEADS, queries, HEAD_DIM, seed=0, dtype=dtype)
    return [q, *(draw(3, kv_heads, keys, HEAD_DIM, seed=seed, dtype=dtype) for seed in (1, 2))]


def mask_of(name: str, queries: int = KEYS) -> Mask:
    conditions = dict(MASKS[name])
    if conditions.pop("documents", False):
        conditions |= {
            "query_documents": QUERY_DOCUMENTS[:, KEYS - queries :],
            "key_documents": KEY_DOCUMENTS,
        }
    return Mask(**conditions)


def bias_of(name: str, queries: int = KEYS) -> Tensor | None:
    rows = BIASES[name]
    return None if rows is None else draw(*rows, queries, KEYS, seed=3)


def context_for(kernel: str, mask: Mask, bias: Tensor | None, queries: int = KEYS) -> AttentionContext:
    config = AttentionConfig(kernel=kernel)
    return attention_context(config, mask, queries, KEYS, CPU, training=False, bias=bias)


def by_formula(qkv: list[Tensor], mask: Mask, bias: Tensor | None, softcap: float | None) -> np.ndarray:
    """One query of one head at a time, in numpy; 0 where it sees no key."""
    q, k, v = (tensor.numpy() for tensor in qkv)
    result, past = np.zeros_like(q), k.shape[2] - q.shape[2]
    for row, head, query in np.ndindex(q.shape[:3]):
        shared = head // (q.shape[1] // k.shape[1])
        seen = mask.sees(torch.tensor(row), torch.tensor(query), torch.arange(k.shape[2]), past).numpy()
        if not seen.any():
            continue
        scores = k[row, shared] @ q[row, head, query] * SCALE
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias.expand(q.shape[0], -1, -1, -1)[row, head, query].numpy()
        weights = np.exp(scores) * seen
        result[row, head, query] = weights / weights.sum() @ v[row, shared]
    return result


def close(ours: Tensor, expected: Tensor | np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(expected), rtol=0, atol=1e-12)


# One function -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [KEYS, 4, 1])
@caps
@biases
@masks
@torch.no_grad()
def test_each_kernel_is_the_formula(mask: str, bias: str, softcap: float | None, queries: int) -> None:
    qkv, the_mask, the_bias = draw_qkv(2, queries), mask_of(mask, queries), bias_of(bias, queries)
    expected = by_formula(qkv, the_mask, the_bias, softcap)
    assert np.abs(expected).max() > 0.1
    for kernel in ("reference", "auto", "sdpa"):
        if kernel == "sdpa" and softcap is not None:
            continue  # which AttentionConfig refuses
        context = context_for(kernel, the_mask, the_bias, queries)
        close(attend(*qkv, context, scale=SCALE, softcap=softcap, kernel=kernel), expected)


def assert_flex_is_the_formula(mask: str, bias: str, softcap: float | None, queries: int) -> None:
    """torch traces it anew for each kind of mask and bias, so that it has fewer cases than the others."""
    qkv, the_mask, the_bias = draw_qkv(2, queries), mask_of(mask, queries), bias_of(bias, queries)
    context = context_for("flex", the_mask, the_bias, queries)
    ours = attend(*qkv, context, scale=SCALE, softcap=softcap, kernel="flex")
    close(ours, by_formula(qkv, the_mask, the_bias, softcap))


@biases
@masks
@torch.no_grad()
def test_flex_is_the_formula(mask: str, bias: str) -> None:
    assert_flex_is_the_formula(mask, bias, None, queries=4)


@pytest.mark.parametrize("queries", [KEYS, 1])
@caps
@biases
@torch.no_grad()
def test_flex_is_the_formula_with_everything_at_once(bias: str, softcap: float | None, queries: int) -> None:
    assert_flex_is_the_formula("everything", bias, softcap, queries)


@groups
@masks
@torch.no_grad()
def test_heads_share_keys_and_values_in_each_kernel(mask: str, kv_heads: int) -> None:
    qkv, the_mask = draw_qkv(kv_heads), mask_of(mask)
    expected = by_formula(qkv, the_mask, None, None)
    for kernel in ("reference", "sdpa", "flex") if mask == "causal" else ("reference", "sdpa"):
        close(attend(*qkv, context_for(kernel, the_mask, None), scale=SCALE, kernel=kernel), expected)


@pytest.mark.parametrize(
    ("kernel", "queries"), [("reference", KEYS), ("sdpa", KEYS), ("sdpa", 4), ("sdpa", 1), ("flex", 4)]
)
@masks
@torch.no_grad()
def test_a_context_made_by_hand_is_masked_all_the_same(mask: str, kernel: str, queries: int) -> None:
    qkv, the_mask = draw_qkv(2, queries), mask_of(mask, queries)
    ours = attend(*qkv, AttentionContext(mask=the_mask), scale=SCALE, kernel=kernel)
    close(ours, by_formula(qkv, the_mask, None, None))


@caps
@biases
@masks
def test_gradients_agree_and_are_finite_where_a_query_sees_nothing(
    mask: str, bias: str, softcap: float | None
) -> None:
    the_mask = mask_of(mask)

    def gradients(kernel: str) -> list[Tensor]:
        the_bias = bias_of(bias)
        leaves = [tensor.requires_grad_() for tensor in (*draw_qkv(2), the_bias) if tensor is not None]
        context = context_for(kernel, the_mask, the_bias)
        out = attend(*leaves[:3], context, scale=SCALE, softcap=softcap, kernel=kernel)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        return list(torch.autograd.grad((out * weights).sum(), leaves))

    expected = gradients("reference")
    assert all(gradient.isfinite().all() and gradient.abs().max() > 1e-3 for gradient in expected)
    if softcap is None:
        for ours, reference in zip(gradients("sdpa"), expected, strict=True):
            close(ours, reference)


@torch.no_grad()
def test_a_query_that_sees_no_key_gets_0_and_pays_attention_to_nothing() -> None:
    (q, k, v), mask = draw_qkv(2), mask_of("documents")
    sees_nothing = ~mask.dense(KEYS, KEYS, CPU).any(dim=-1)[:, 0]
    assert sees_nothing.sum() == 2
    for kernel in ("reference", "flex", "sdpa"):
        for bias in BIASES:
            context = context_for(kernel, mask, bias_of(bias))
            out = attend(q, k, v, context, scale=SCALE, kernel=kernel).transpose(1, 2)  # [B, T, H, E]
            assert (out[sees_nothing] == 0).all()
            assert (out[~sees_nothing] != 0).all()
    weights = attention_weights(q, k, context_for("reference", mask, None), scale=SCALE).transpose(1, 2)
    assert (weights[sees_nothing] == 0).all()
    close(weights[~sees_nothing].sum(dim=-1), np.ones((3 * KEYS - 2, HEADS)))


@pytest.mark.parametrize("cap", [0.5, 4.0])
@torch.no_grad()
def test_a_soft_cap_bounds_how_much_one_key_outweighs_another(cap: float) -> None:
    q, k, _ = draw_qkv(4)
    context = context_for("reference", Mask(is_causal=False), None)
    capped = attention_weights(100 * q, k, context, scale=SCALE, softcap=cap)
    ratios = capped.amax(dim=-1) / capped.amin(dim=-1)
    assert ratios.max() <= math.exp(2 * cap) * (1 + 1e-12)
    assert ratios.max() > math.exp(1.9 * cap)
    free = attention_weights(1e-4 * q, k, context, scale=SCALE)
    torch.testing.assert_close(
        attention_weights(1e-4 * q, k, context, scale=SCALE, softcap=cap), free, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kernel", ["reference", "sdpa"])
def test_dropout_falls_on_the_weights_and_keeps_their_mean(kernel: str) -> None:
    q, k = torch.zeros(1, 1, 400, 2), torch.zeros(1, 1, 100, 2)
    v = torch.eye(100)[None, None]
    context = attention_context(
        AttentionConfig(kernel=kernel), Mask(is_causal=False), 400, 100, CPU, training=True
    )
    torch.manual_seed(0)
    weights = attend(q, k, v, context, scale=1.0, dropout=0.25, kernel=kernel) * 100
    kept = weights != 0
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 0.75))


# Which kernel -----------------------------------------------------------------------------------------


def test_flex_says_that_it_does_not_train_on_a_cpu() -> None:
    q, k, v = draw_qkv(2)
    context = context_for("flex", Mask(), None)
    with pytest.raises(ValueError, match="kernel 'flex' has no backward pass on CPUs; train with"):
        attend(q.requires_grad_(), k, v, context, scale=SCALE, kernel="flex")


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (False, {}),
        (True, {"kernel": "flex"}),
        (True, {"kernel": "flex", "device": CUDA}),
        (False, {"is_plain": False, "softcap": 2.0}),
        (False, {"device": CUDA}),
        (True, {"device": CUDA, "is_plain": False}),
        (True, {"device": CUDA, "softcap": 2.0}),
        (False, {"device": CUDA, "is_plain": False, "has_bias": True}),
        (False, {"device": CUDA, "is_plain": False, "dropout": 0.1}),
        (False, {"device": CUDA, "is_plain": False, "kernel": "sdpa"}),
        (False, {"device": CUDA, "softcap": 2.0, "kernel": "reference"}),
    ],
    ids=str,
)
def test_flex_is_taken_where_asked_for_and_on_cuda_where_it_pays(wanted: bool, changes: dict) -> None:
    plain = {"is_plain": True, "has_bias": False, "softcap": None, "dropout": 0.0}
    settings = {"kernel": "auto", "device": CPU, **plain, **changes}
    assert wants_blocks(settings.pop("kernel"), settings.pop("device"), **settings) == wanted


# The short kernel -------------------------------------------------------------------------------------


def short(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return short_attention(q, k, v, scale=SCALE)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    context = attention_context(AttentionConfig(), Mask(), q.shape[2], k.shape[2], CPU, training=True)
    return attend(q, k, v, context, scale=SCALE)


def output_and_gradients(kernel, qkv: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.requires_grad_() for tensor in qkv]
    out = kernel(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


@groups
def test_short_attention_is_the_same_function_with_the_same_gradients(kv_heads: int) -> None:
    expected = output_and_gradients(fused, draw_qkv(kv_heads))
    for ours, theirs in zip(output_and_gradients(short, draw_qkv(kv_heads)), expected, strict=True):
        close(ours, theirs)


def test_short_attention_has_the_gradient_of_its_own_forward() -> None:
    assert torch.autograd.gradcheck(
        short, [tensor.requires_grad_() for tensor in draw_qkv(2, queries=4, keys=4)]
    )


@groups
def test_training_in_bf16_comes_as_near_to_float64_as_torchs_kernel(kv_heads: int, monkeypatch) -> None:
    exact = output_and_gradients(fused, draw_qkv(kv_heads, 64, 64))

    def errors() -> list[float]:
        found = output_and_gradients(fused, draw_qkv(kv_heads, 64, 64, dtype=torch.bfloat16))
        return [float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)]

    ours = errors()
    monkeypatch.setattr(kernels, "is_faster", lambda *_: False)
    torchs = errors()
    assert ours != torchs, "the case must take short_attention"
    for error, reference in zip(ours, torchs, strict=True):
        assert error <= max(2 * reference, 0.01)


def test_short_attention_is_for_training_in_bf16_over_short_whole_sequences() -> None:
    q, k, _ = draw_qkv(2, dtype=torch.bfloat16)
    assert is_faster(q, k)
    assert not is_faster(q[:, :, -1:], k)
    assert not is_faster(q.float(), k.float())
    assert not is_faster(*(torch.zeros(1, 1, 513, 2, dtype=torch.bfloat16) for _ in range(2)))
    with torch.no_grad():
        assert not is_faster(q, k)


@pytest.mark.parametrize(
    ("mask", "bias", "dropout", "takes_it"),
    [
        ("causal", "no bias", 0.0, True),
        ("bidirectional", "no bias", 0.0, False),
        ("causal window", "no bias", 0.0, False),
        ("documents", "no bias", 0.0, False),
        ("causal", "bias of all rows", 0.0, False),
        ("causal", "no bias", 0.5, False),
    ],
)
def test_short_attention_is_taken_for_plain_causal_masks_alone(
    mask: str, bias: str, dropout: float, takes_it: bool, monkeypatch
) -> None:
    taken: list[float] = []

    def record(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
        taken.append(scale)
        return short_attention(q, k, v, scale=scale)

    monkeypatch.setattr(kernels, "short_attention", record)
    the_bias = bias_of(bias)
    context = context_for("auto", mask_of(mask), None if the_bias is None else the_bias.bfloat16())
    attend(*draw_qkv(2, dtype=torch.bfloat16), context, scale=SCALE, dropout=dropout)
    assert taken == ([SCALE] if takes_it else [])
