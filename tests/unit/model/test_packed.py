"""Packed matrices: what is stored, how near it is, and that a packed model is the model of its rounded weights."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.model import DecoderConfig, EncoderDecoderConfig, native
from pellucid.model.feedforward import MoEConfig
from pellucid.model.packed import PackedLinear, PackedMatrix, bits_per_weight, pack, weight_bytes
from pellucid.model.packed.formats import bytes_of, dequantise, quantise, rows_of
from pellucid.model.packed.layers import FEW_ROWS, FEW_ROWS_QUANTISED

FORMS = ["fp32", "bf16", "fp16", "q8", "q4"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "_library", lambda: None)
    elif not native.is_available():
        pytest.skip(native.built().reason)
    return request.param


@pytest.mark.parametrize("form", ["q8", "q4"])
@pytest.mark.parametrize("n", [1, 16, 35])
def test_whole_numbers_times_a_scale_a_group(form: str, n: int) -> None:
    matrix, most = draw(n, 96), {"q8": 127, "q4": 8}[form]
    packed = quantise(matrix, form)
    assert packed.numel() == bytes_of(n, 96, form)
    back = dequantise(packed, n, form)
    for row in range(n):
        for group in range(3):
            part = back[row, 32 * group : 32 * group + 32]
            scale = part[part != 0].abs().min() if form == "q8" else None
            if scale is not None:
                assert part.abs().max() <= 127 * scale * 1.001
            assert part.unique().numel() <= 2 * most + 1


def test_8_bits_are_within_half_a_step_of_the_weight() -> None:
    matrix = draw(40, 64)
    step = (matrix.unflatten(1, (-1, 32)).abs().amax(dim=2) / 127)[..., None].expand(-1, -1, 32).flatten(1)
    assert (
        (dequantise(quantise(matrix, "q8"), 40, "q8") - matrix).abs() <= 0.51 * step + 1e-3 * matrix.abs()
    ).all()


def q4_0(matrix: Tensor) -> Tensor:
    """llama.cpp's rounding: the weight of largest magnitude becomes -8 steps."""
    groups = matrix.unflatten(1, (-1, 32))
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scale = (largest / -8).half().float()
    q = (groups / scale + 8.5).floor().clamp(0, 15) - 8
    return (q * scale).flatten(1)


@pytest.mark.parametrize("seed", range(3))
def test_4_bits_are_nearer_than_llama_cpps_in_every_group(seed: int) -> None:
    """By the error that is made small: large weights count more. Added up, also by the plain one."""
    matrix = draw(64, 256, seed=seed)
    squares = matrix.square().unflatten(1, (-1, 32))
    ours = (dequantise(quantise(matrix, "q4"), 64, "q4") - matrix).square().unflatten(1, (-1, 32))
    theirs = (q4_0(matrix) - matrix).square().unflatten(1, (-1, 32))
    weight = squares + squares.mean(dim=2, keepdim=True)
    assert ((weight * ours).sum(dim=2) <= (weight * theirs).sum(dim=2) * 1.005).all(), (
        "but for a scale's rounding"
    )
    assert (weight * ours).sum() < 0.94 * (weight * theirs).sum()
    assert ours.sum() < theirs.sum()


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_groups_of_zeros_and_of_one_number_come_back(form: str) -> None:
    matrix, largest = torch.zeros(3, 64), {"q8": 127 / 256, "q4": 0.5}[form]  # whose scale fp16 holds exactly
    matrix[1] = largest
    matrix[2, 40] = -4 * largest
    assert torch.equal(dequantise(quantise(matrix, form), 3, form), matrix)


def test_columns_that_are_no_multiple_of_a_group_are_refused_and_a_layer_of_them_stays_bf16() -> None:
    with pytest.raises(ValueError, match="48 columns are no multiple of 32"):
        quantise(draw(4, 48), "q4")
    assert PackedMatrix(draw(4, 48), "q4").form == "bf16"


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_rows_are_those_of_the_matrix(form: str) -> None:
    packed = quantise(draw(35, 64), form)
    ids = torch.tensor([[0, 34, 17], [16, 15, 0]])
    assert torch.equal(rows_of(packed, ids, form), dequantise(packed, 35, form)[ids])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 5, FEW_ROWS + 1, FEW_ROWS_QUANTISED + 1])
def test_a_product_is_that_of_the_rounded_matrix(kernels: bool, form: str, rows: int) -> None:
    packed, x = PackedMatrix(draw(70, 128), form), draw(2, rows, 128, seed=1)[:1]
    expected = x.double() @ packed.matrix().double().T
    many_in_bf16 = form not in ("fp32", "fp16") and (rows > packed.few_rows or not kernels)
    tolerance = 0.02 if many_in_bf16 else 1e-6
    assert (packed(x).double() - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_both_ways_of_unpacking_agree(form: str) -> None:
    if not native.is_available():
        pytest.skip(native.built().reason)
    packed = PackedMatrix(draw(70, 128), form)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(packed.matrix(dtype), dequantise(packed.data, 70, form).to(dtype))


def test_a_layer_keeps_its_bias() -> None:
    linear = nn.Linear(64, 32)
    x = draw(3, 64)
    torch.testing.assert_close(PackedLinear(linear, "fp32")(x), linear(x), rtol=1e-5, atol=1e-5)


SIZES = {"vocab_size": 96, "d_model": 64, "num_heads": 4, "max_seq_len": 48}
CONFIGS = {
    "tied": DecoderConfig(**SIZES, num_layers=2),
    "free head, padded": DecoderConfig(
        **SIZES, num_layers=2, tie_embeddings=False, vocab_multiple=64, bias=True
    ),
    "experts": DecoderConfig(**SIZES, num_layers=2, feed_forward=MoEConfig(d_ff=32, num_experts=4, top_k=2)),
    "encoder-decoder": EncoderDecoderConfig(**SIZES, num_encoder_layers=1, num_decoder_layers=2),
    "two tables": EncoderDecoderConfig(
        **SIZES, num_encoder_layers=1, num_decoder_layers=2, share_embeddings=False, scale_embeddings=True
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_packed_model_is_the_model_of_its_rounded_weights(form: str, name: str) -> None:
    """Logits of one id at a time against a plain model that has been given the numbers the packed one computes with."""
    plain, packed = CONFIGS[name].build(seed=1).eval(), CONFIGS[name].build(seed=1).eval()
    pack(packed, form)
    modules = dict(packed.named_modules())
    for path, module in plain.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.data.copy_(modules[path].weight)
        elif hasattr(module, "table") and hasattr(module, "factor"):
            module.table.data.copy_(modules[path].table)
    ids = torch.randint(0, 96, (2, 6), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        starts = [model.start(ids[:, :1], 8, dtype=torch.float32) for model in (plain, packed)]
        for t in range(6):
            a, b = (
                model.head(model.hidden(ids[:, t : t + 1], cache=start.cache).states)
                for model, start in zip((plain, packed), starts, strict=True)
            )
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
        given = {} if packed.continues_prompt else {"encoder_ids": ids}
        logits = packed.head_parameters().logits(packed.hidden(ids, **given).states)
        torch.testing.assert_close(
            packed.head(packed.hidden(ids, **given).states), logits, rtol=0.05, atol=0.05
        )


@pytest.mark.parametrize("form", ["bf16", "q8", "q4"])
def test_a_prompt_in_a_large_batch_is_the_same_but_for_rounding(form: str) -> None:
    """Many rows are multiplied in bf16 where the processor does that, few in float32."""
    model = CONFIGS["tied"].build(seed=0).eval()
    pack(model, form)
    ids = torch.randint(0, 61, (9, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone, together = model(ids[:1])[0], model(ids)[0]
    assert (alone - together).norm() < 0.02 * alone.norm()


def test_memory_is_what_the_format_says() -> None:
    config = DecoderConfig(vocab_size=512, d_model=128, num_heads=4, num_layers=4)
    sizes = {}
    for form in FORMS:
        model = config.build(seed=0)
        weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
        rest = sum(4 * p.numel() for p in model.parameters() if p.dim() != 2)
        pack(model, form)
        sizes[form] = weight_bytes(model)
        of_tokens = "q8" if form == "q4" else form
        inside = weights - 512 * 128
        assert sizes[form] == (
            (inside * bits_per_weight(form) + 512 * 128 * bits_per_weight(of_tokens)) / 8 + rest
        )
    assert sizes["q4"] < sizes["q8"] < sizes["bf16"] == sizes["fp16"] < sizes["fp32"]


def test_in_4_bits_a_head_of_its_own_has_8() -> None:
    model = DecoderConfig(vocab_size=64, d_model=32, num_heads=2, tie_embeddings=False).build(seed=0)
    pack(model, "q4")
    forms = {name: m.form for name, m in model.named_modules() if isinstance(m, PackedMatrix)}
    assert {name for name, form in forms.items() if form == "q8"} == {"embedding.packed", "output.packed"}
    assert set(forms.values()) == {"q4", "q8"}


def test_keys_and_values_of_narrow_weights_are_kept_in_bf16() -> None:
    for form, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("q4", torch.bfloat16)):
        model = CONFIGS["tied"].build(seed=0)
        pack(model, form)
        assert model.new_cache(1).keys.dtype == dtype
