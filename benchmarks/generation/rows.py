"""The rows of `generate.py`: which library writes with which weights, and what each is set beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

LIMITS = {"fp32": 1e-3, "fp16": 5e-3, "bf16": 2e-2, "8 bits": 5e-2, "4 bits": 1.5}
"""The largest mean shortfall (see `model.shortfall`) of right kernels: four times and more of what was found with the
largest size of random weights, and far below the 4.2 of ids taken at random."""


@dataclass(frozen=True)
class Size:
    """The shape that all rows share, and how much of memory is read to measure its bandwidth."""

    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    vocab_size: int
    max_seq_len: int
    bandwidth_mib: int

    @property
    def shape(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name != "bandwidth_mib"}


SIZES = {
    "124m": Size(768, 12, 12, 2048, 50_304, 1024, bandwidth_mib=512),
    "tiny": Size(64, 2, 2, 128, 512, 128, bandwidth_mib=8),  # to try the script out
}


@dataclass(frozen=True)
class Row:
    """A library and a setting of it. `engine` is a module of peers/generation."""

    name: str
    engine: str
    package: str
    weights: str
    """The key of LIMITS."""
    setting: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    beside: tuple[str, ...] = ()
    """Rows whose speed this one's is divided by."""
    waits_briefly: bool = False
    """Whether its threads spin at a barrier as briefly as those of our command, or as libgomp has it."""


TRANSFORMERS = "transformers bf16"


def ours(name: str, dtype: str, *beside: str, quantize: str | None = None, batch: int = 1) -> Row:
    weights = {None: dtype, "q8": "8 bits", "q4": "4 bits"}[quantize]
    setting = {"dtype": dtype} if quantize is None else {"quantize": quantize}
    engine = "pellucid_decode"
    return Row(f"pellucid {name}", engine, "pellucid", weights, setting, batch, beside, waits_briefly=True)


def in_torch(library: str, dtype: str, *beside: str, batch: int = 1) -> Row:
    name = f"{library} {dtype}" + (f", batch {batch}" if batch > 1 else "")
    return Row(name, f"{library}_generate", library, dtype, {"dtype": dtype}, batch, beside)


GGUF_WEIGHTS = {"bf16": "bf16", "q8_0": "8 bits", "q4_0": "4 bits"}


def llama_cpp(number_format: str, how: str = "", *, waits_briefly: bool = False, **setting: Any) -> Row:
    name = f"llama.cpp {number_format}"
    return Row(
        f"{name}, {how}" if how else name,
        "llama_cpp_decode",
        "llama_cpp",
        GGUF_WEIGHTS[number_format],
        {"number_format": number_format, **setting},
        beside=(TRANSFORMERS, *([name] if how else [])),
        waits_briefly=waits_briefly,
    )


BATCHES = (8, 32)
BRIEF = "brief waits"

ROWS = [
    in_torch("transformers", "fp32"),
    in_torch("transformers", "bf16"),
    in_torch("litgpt", "bf16", TRANSFORMERS),
    *(llama_cpp(number_format) for number_format in GGUF_WEIGHTS),
    Row(
        "CTranslate2 int8",
        "ctranslate2_generator",
        "ctranslate2",
        "8 bits",
        {"compute_type": "int8"},
        beside=(TRANSFORMERS, "llama.cpp q8_0"),
    ),
    Row(
        "ONNX Runtime GenAI int4",
        "onnx_genai",
        "onnxruntime_genai",
        "4 bits",
        beside=(TRANSFORMERS, "llama.cpp q4_0"),
    ),
    ours("fp32", "fp32", "transformers fp32"),
    ours("fp16", "fp16", TRANSFORMERS, "llama.cpp bf16"),
    ours("bf16", "bf16", TRANSFORMERS, "llama.cpp bf16"),
    ours("q8", "bf16", TRANSFORMERS, "llama.cpp q8_0", quantize="q8"),
    ours("q4", "bf16", TRANSFORMERS, "llama.cpp q4_0", quantize="q4"),
    *(in_torch("transformers", "bf16", batch=batch) for batch in BATCHES),
    *(ours(f"bf16, batch {b}", "bf16", f"{TRANSFORMERS}, batch {b}", batch=b) for b in BATCHES),
]

SETTINGS = [
    row
    for number_format in GGUF_WEIGHTS
    for row in (
        llama_cpp(number_format, "flash attention on", flash_attention="on"),
        llama_cpp(number_format, "flash attention off", flash_attention="off"),
        llama_cpp(number_format, "extra buffers", extra_buffers=True),
        llama_cpp(number_format, BRIEF, waits_briefly=True),
    )
]
SETTINGS += [
    replace(row, name=f"{row.name}, {BRIEF}", beside=(row.name,), waits_briefly=True)
    for row in ROWS
    if row.name.startswith("transformers")
]
"""Others with one choice turned round, so that their best one can be looked for. Asked for by --settings.

"extra buffers" repack weights for AMX, where q8_0 and q4_0 crash (github.com/ggml-org/llama.cpp/issues/20824).
"""
