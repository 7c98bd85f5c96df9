import contextlib
import warnings

import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.runtime.device import Device, DeviceType
from pellucid.runtime.precision import (
    Precision,
    PrecisionName,
    allow_tf32,
    choose_generation_format,
    choose_precision,
)


def device(kind: DeviceType, has_bf16: bool = False) -> Device:
    return Device(kind, "for a test", has_bf16, can_compile=False, compile_reason="")


CUDA, OLD_CUDA = device("cuda", has_bf16=True), device("cuda")
MPS = device("mps")
CPU, OLD_CPU = device("cpu", has_bf16=True), device("cpu")


@pytest.mark.parametrize(
    ("wanted", "where", "name", "reason"),
    [
        ("auto", CUDA, "bf16", "this hardware multiplies bf16 natively"),
        ("auto", OLD_CUDA, "fp16", "this GPU lacks bf16; fp16 with a gradient scaler"),
        ("auto", MPS, "fp32", "MPS trains in float32"),
        ("auto", device("mps", has_bf16=True), "fp32", "MPS trains in float32"),
        ("auto", CPU, "bf16", "this hardware multiplies bf16 natively"),
        ("auto", OLD_CPU, "fp32", "this CPU lacks native bf16"),
        *((name, CUDA, name, "as asked") for name in ("fp32", "bf16", "fp16")),
        ("fp32", OLD_CPU, "fp32", "as asked"),
        ("bf16", OLD_CPU, "bf16", "as asked; this hardware emulates bf16, which is slower than fp32"),
        ("bf16", OLD_CUDA, "bf16", "as asked; this hardware emulates bf16, which is slower than fp32"),
        ("fp32", MPS, "fp32", "as asked"),
    ],
)
def test_choice(wanted: PrecisionName, where: Device, name: str, reason: str) -> None:
    precision = choose_precision(wanted, where)
    assert (precision.name, precision.device, precision.reason) == (name, where, reason)
    assert precision.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


@pytest.mark.parametrize(
    ("wanted", "where", "message"),
    [
        ("fp16", CPU, "fp16 needs a CUDA GPU, and the device is cpu; use bf16 or fp32"),
        ("fp16", MPS, "fp16 needs a CUDA GPU, and the device is mps; use "),
        ("bf16", MPS, "MPS trains in float32 here; use fp32 or auto"),
    ],
)
def test_what_a_device_cannot_train_in_is_refused(wanted: PrecisionName, where: Device, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_precision(wanted, where)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_narrow_and_weights_stay_wide(wanted: PrecisionName, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with choose_precision(wanted, CPU).autocast():
        out = layer(torch.ones(2, 4))
    assert out.dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(2, 4)).dtype == torch.float32  # the context has ended


def test_fp32_has_no_context() -> None:
    assert isinstance(choose_precision("fp32", CPU).autocast(), contextlib.nullcontext)


def test_only_fp16_scales_gradients() -> None:
    for precision in (choose_precision("bf16", CUDA), choose_precision("fp32", CUDA)):
        assert precision.gradient_scaler() is None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*CUDA is not available")  # it turns itself off here
        scaler = choose_precision("auto", OLD_CUDA).gradient_scaler()
    assert isinstance(scaler, torch.amp.GradScaler)
    assert scaler.is_enabled() == torch.cuda.is_available()


MIB = 2**20


@pytest.mark.parametrize(
    ("wanted", "where", "reads_narrow", "weight_bytes", "name"),
    [
        ("auto", CUDA, False, MIB, "bf16"),
        ("auto", OLD_CUDA, False, 500 * MIB, "fp32"),
        ("auto", CPU, True, 500 * MIB, "bf16"),
        ("auto", CPU, True, 10 * MIB, "fp32"),  # in the processor's caches: exactly as it was saved
        ("auto", CPU, False, 500 * MIB, "fp32"),
        ("auto", OLD_CPU, False, 500 * MIB, "fp32"),
        ("auto", MPS, False, 500 * MIB, "fp32"),
        ("fp16", CPU, False, 500 * MIB, "fp16"),
        ("bf16", MPS, False, MIB, "bf16"),
        ("fp32", CUDA, False, 500 * MIB, "fp32"),
        ("fp32", CPU, True, 500 * MIB, "fp32"),
    ],
)
def test_format_of_generation(
    wanted: PrecisionName, where: Device, reads_narrow: bool, weight_bytes: int, name: str
) -> None:
    found = choose_generation_format(wanted, where, reads_narrow=reads_narrow, weight_bytes=weight_bytes)
    assert found == name


def test_a_precision_is_a_value() -> None:
    assert choose_precision("bf16", CPU) == Precision("bf16", CPU, "as asked")


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_told_to_torch_in_words_that_its_compiler_understands(tf32: bool) -> None:
    try:
        allow_tf32(choose_precision("fp32", CUDA, tf32=tf32))
        assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if tf32 else "ieee")
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")  # which it asks
    finally:
        allow_tf32(choose_precision("fp32", CPU))


@pytest.mark.parametrize(("where", "has_it"), [(CUDA, True), (OLD_CUDA, False), (MPS, False), (CPU, False)])
def test_who_has_tf32(where: Device, has_it: bool) -> None:
    assert where.has_tf32 == has_it
