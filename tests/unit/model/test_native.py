"""The native kernels equal torch, and their rows do not depend on the batch."""

import pytest
import torch
from torch import Tensor

from pellucid.model import DecoderConfig, native
from pellucid.model.kernels import AttentionContext, attend
from pellucid.model.kernels.reference import reference_attention
from pellucid.model.masks import Mask
from pellucid.model.norms import RMSNorm
from pellucid.model.packed import PackedMatrix

pytestmark = pytest.mark.skipif(not native.is_available(), reason=f"native kernels: {native.built().reason}")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 4, 7])
@pytest.mark.parametrize(("n", "k"), [(1, 16), (3, 48), (64, 128), (130, 1040)])
def test_a_product_equals_torch_in_float64(form: str, rows: int, n: int, k: int) -> None:
    w, x = draw(n, k).to(DTYPES[form]), draw(rows, k, seed=1)
    y = native.linear(native.FORMATS[form], w, x, n)
    torch.testing.assert_close(y.double(), x.double() @ w.double().T, rtol=1e-5, atol=1e-5 * k**0.5)


def test_fp16_reads_every_finite_number_as_torch_does() -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(torch.float16)
    finite = torch.where(numbers.isfinite(), numbers, 0).reshape(-1, 16)
    for lane in range(16):
        one = torch.zeros(1, 16)
        one[0, lane] = 1
        read = native.linear(native.FORMATS["fp16"], finite, one, len(finite))[0]
        assert torch.equal(read, finite[:, lane].float())


@pytest.mark.parametrize("form", DTYPES)
def test_a_row_is_the_same_alone_and_in_a_batch(form: str) -> None:
    w, x = draw(70, 256).to(DTYPES[form]), draw(11, 256, seed=1)
    together = native.linear(native.FORMATS[form], w, x, 70)
    for row in range(11):
        assert torch.equal(native.linear(native.FORMATS[form], w, x[row : row + 1], 70)[0], together[row])


def test_what_does_not_fit_is_refused_as_torch_refuses_it() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError):
        RMSNorm(64)(draw(2, 128))
    with torch.inference_mode(), pytest.raises(RuntimeError):
        PackedMatrix(draw(8, 64), "q8")(draw(2, 128))


def test_a_row_is_the_same_by_one_thread_and_by_several() -> None:
    w, x, threads = draw(500, 256), draw(1, 256, seed=1), torch.get_num_threads()
    several = native.linear(0, w, x, 500)
    try:
        torch.set_num_threads(1)
        assert torch.equal(native.linear(0, w, x, 500), several)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("masked", [None, "one", "rows", "all"])
@pytest.mark.parametrize("biased", [None, 3, 4])
def test_one_query_equals_the_reference(
    dtype: torch.dtype, kv_heads: int, softcap: float | None, masked: str | None, biased: int | None
) -> None:
    batch, heads, length, e = 3, 6, 37, 32
    q = draw(batch, heads, 1, e)
    whole = draw(2, batch, kv_heads, 64, e, seed=2).to(dtype)
    k, v = whole[0, :, :, :length], whole[1, :, :, :length]  # strided, as a cache gives them
    documents = torch.zeros(batch, length, dtype=torch.int64)
    if masked == "rows":
        documents[0, :5], documents[1, :11] = -1, -1
    if masked == "all":
        documents[:] = -1
    mask = Mask(window=9) if masked == "one" else Mask()
    if masked in ("rows", "all"):
        mask = Mask(query_documents=torch.zeros(batch, 1, dtype=torch.int64), key_documents=documents)
    bias = None if biased is None else draw(*([batch] if biased == 4 else []), heads, 1, length, seed=3)
    context = AttentionContext(mask, mask.dense(1, length, q.device), bias)
    expected = reference_attention(q.double(), k.double(), v.double(), context, scale=0.3, softcap=softcap)
    with torch.inference_mode():
        assert native.can_attend_one(q, k, v)
        y = attend(q, k, v, context, scale=0.3, softcap=softcap)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_nan_is_not_hidden() -> None:
    q, k = draw(1, 1, 1, 16), draw(1, 1, 5, 16)
    q[..., 3] = torch.nan
    with torch.inference_mode():
        assert native.attend_one(q, k, k, scale=1.0).isnan().all()


def test_it_is_left_to_torch_where_gradients_are_wanted_or_queries_are_several() -> None:
    q, k = draw(1, 2, 1, 16), draw(1, 2, 5, 16)
    assert not native.can_attend_one(q, k, k)
    with torch.no_grad():
        assert native.can_attend_one(q, k, k)
        assert not native.can_attend_one(draw(1, 2, 2, 16), k, k)
        assert not native.can_attend_one(q.double(), k.double(), k.double())
        assert not native.can_attend_one(q, k.double(), k.double())
        assert not native.can_attend_one(q, k, draw(1, 2, 6, 16)[:, :, :5])
        assert not native.can_attend_one(draw(1, 2, 1, 24), draw(1, 2, 5, 24), draw(1, 2, 5, 24))


@pytest.mark.parametrize("d", [16, 96, 768])
def test_the_norm_equals_the_formula(d: int) -> None:
    x, norm = 5 * draw(3, 2, d), RMSNorm(d, eps=1e-5)
    norm.gain.data.copy_(draw(d, seed=4))
    wide = x.double()
    expected = wide / (wide.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.gain.double()
    with torch.inference_mode():
        assert native.can_normalise(x, norm.gain)
        torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_a_model_decodes_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DecoderConfig(
        vocab_size=50, d_model=64, num_heads=4, num_kv_heads=2, num_layers=2, max_seq_len=32
    )
    model = config.build(seed=1).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    prompt = torch.arange(5)
    ours = model.generate(prompt, 40)
    monkeypatch.setattr(native, "_library", lambda: None)
    assert torch.equal(model.generate(prompt, 40), ours)
    assert ours.unique().numel() > 5
