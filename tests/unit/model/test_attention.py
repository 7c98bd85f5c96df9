import pytest
import torch
from torch import Tensor

from pellucid.model import attention
from pellucid.model.attention import Attention, causal_attention
from pellucid.model.short_attention import is_faster, short_attention

heads = pytest.mark.parametrize("kv_heads", [4, 2, 1])


def draw_qkv(kv_heads: int, time: int = 9, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, n, time, 6) for n in (4, kv_heads, kv_heads)]
    draws = [torch.empty(s, dtype=torch.float64).normal_(generator=generator) for s in shapes]
    return [d.to(dtype).requires_grad_() for d in draws]


def output_and_gradients(kernel, qkv: list[Tensor]) -> list[Tensor]:
    out = kernel(*qkv)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), qkv)]


@heads
def test_short_attention_is_the_same_function_with_the_same_gradients(kv_heads: int) -> None:
    expected = output_and_gradients(causal_attention, draw_qkv(kv_heads))
    for ours, theirs in zip(output_and_gradients(short_attention, draw_qkv(kv_heads)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_short_attention_has_the_gradient_of_its_own_forward() -> None:
    assert torch.autograd.gradcheck(short_attention, draw_qkv(2, time=4))


@heads
def test_training_in_bf16_comes_as_near_to_float64_as_torchs_kernel(kv_heads: int, monkeypatch) -> None:
    exact = output_and_gradients(causal_attention, draw_qkv(kv_heads, time=64))

    def errors() -> list[float]:
        found = output_and_gradients(causal_attention, draw_qkv(kv_heads, time=64, dtype=torch.bfloat16))
        return [float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)]

    ours = errors()
    monkeypatch.setattr(attention, "is_faster", lambda *_: False)
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


def test_heads_must_share_key_value_heads_evenly() -> None:
    with pytest.raises(ValueError, match=r"num_heads \(6\) must be a multiple of num_kv_heads \(4\)"):
        Attention(24, num_heads=6, num_kv_heads=4, head_dim=4)
