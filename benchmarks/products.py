"""How fast is one row multiplied by the matrices of a model: what writing text waits for.

Every way multiplies a row of random numbers by all matrices of a 124M model (12 blocks and the head), in rounds, one
way after the other; the time is that of a whole token's products.

    ms       median over rounds, and the range
    GB/s     of the matrices' bytes as that way has them
    x bf16   to torch's bf16, median over rounds of the ratio within a round

"16 rows" pads the row to what the processor's tiles take. "packed" is oneDNN's own order of a matrix. "compiled" is
torch.compile with max-autotune and its C++ templates, the matrices being constants (--compiled; a minute to build).

    python benchmarks/products.py --json benchmarks/results/products.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as our command sets it, before torch reads it

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from machine import describe_machine
from pellucid.model import native
from pellucid.model.packed import Format, PackedMatrix, bits_per_weight

BLOCK = [(768, 768)] * 4 + [(2048, 768)] * 2 + [(768, 2048)]
SHAPES = BLOCK * 12 + [(50_304, 768)]
NUMBERS = sum(n * k for n, k in SHAPES)
GROUP = 32

Product = Callable[[Tensor], Tensor]


def matrices() -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(0)
    for n, k in SHAPES:
        yield torch.randn(n, k, generator=draw) / k**0.5


def by_torch(dtype: torch.dtype) -> list[Product]:
    def one(w: Tensor) -> Product:
        return lambda x: F.linear(x.to(dtype), w)

    return [one(w.to(dtype)) for w in matrices()]


def by_sixteen_rows() -> list[Product]:
    def one(w: Tensor) -> Product:
        return lambda x: F.linear(x.to(torch.bfloat16).expand(16, -1).contiguous(), w)

    return [one(w.bfloat16()) for w in matrices()]


def by_onednn() -> list[Product]:
    def one(w: Tensor) -> Product:
        packed = torch.ops.mkldnn._reorder_linear_weight(w, 1)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x.bfloat16(), packed, None, "none", [], "")

    return [one(w.bfloat16()) for w in matrices()]


def by_int8() -> list[Product]:
    """A scale a row."""

    def one(w: Tensor) -> Product:
        scale = w.abs().amax(dim=1) / 127
        q, scale = (w / scale[:, None]).round().to(torch.int8), scale.bfloat16()
        return lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), q, scale)

    return [one(w) for w in matrices()]


def by_int4() -> list[Product]:
    """A scale and a zero a group of 32."""

    def one(w: Tensor) -> Product:
        groups = w.unflatten(1, (-1, GROUP))
        scale = groups.abs().amax(dim=2) / 7
        q = ((groups / scale[..., None]).round() + 8).to(torch.int32).flatten(1)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1)
        both = torch.stack((scale, torch.zeros_like(scale)), dim=2).transpose(0, 1).contiguous().bfloat16()
        return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), packed, GROUP, both)

    return [one(w) for w in matrices()]


def by_compiler() -> list[Product]:
    from torch._inductor import config

    config.freezing = True
    config.max_autotune_gemm_backends = "CPP,ATEN"

    def one(w: Tensor) -> Product:
        layer = nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.bfloat16).eval()
        layer.weight.data = w.bfloat16()
        compiled = torch.compile(layer, mode="max-autotune-no-cudagraphs")
        return lambda x: compiled(x.bfloat16())

    torch._dynamo.config.recompile_limit = len(SHAPES) + 1
    return [one(w) for w in matrices()]


def by_ourselves(form: Format) -> list[Product]:
    return [PackedMatrix(w, form) for w in matrices()]


WAYS: dict[str, tuple[Callable[[], list[Product]], float]] = {
    "torch fp32": (lambda: by_torch(torch.float32), 32),
    "torch bf16": (lambda: by_torch(torch.bfloat16), 16),
    "torch bf16, 16 rows": (by_sixteen_rows, 16),
    "torch bf16, packed": (by_onednn, 16),
    "torch int8": (by_int8, 8),
    "torch int4": (by_int4, 4 + 32 / GROUP),
    "ours fp32": (lambda: by_ourselves("fp32"), bits_per_weight("fp32")),
    "ours fp16": (lambda: by_ourselves("fp16"), bits_per_weight("fp16")),
    "ours bf16": (lambda: by_ourselves("bf16"), bits_per_weight("bf16")),
    "ours q8": (lambda: by_ourselves("q8"), bits_per_weight("q8")),
    "ours q4": (lambda: by_ourselves("q4"), bits_per_weight("q4")),
}
"""How the products are made ready, and the bits that a weight takes."""
COMPILED = {"torch bf16, compiled": (by_compiler, 16.0)}


def token(products: list[Product], rows: dict[int, Tensor]) -> float:
    """Seconds that all products of a token take."""
    began = time.perf_counter()
    for product, (_, k) in zip(products, SHAPES, strict=True):
        product(rows[k])
    return time.perf_counter() - began


@torch.inference_mode()
def measure(rounds: int, *, compiled: bool) -> dict[str, Any]:
    rows = {k: torch.randn(1, k) for _, k in SHAPES}
    ready, failed = dict[str, list[Product]](), dict[str, str]()
    for name, (make, _) in (WAYS | (COMPILED if compiled else {})).items():
        try:
            ready[name] = make()
            token(ready[name], rows)
        except (RuntimeError, NotImplementedError) as error:
            ready.pop(name, None)
            failed[name] = str(error).splitlines()[0]
        print(f"  {name}: {failed.get(name, 'ready')}", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, products in ready.items():
            times[name].append(min(token(products, rows) for _ in range(3)))
    bits = {name: each for name, (_, each) in (WAYS | COMPILED).items()}
    return {
        "machine": describe_machine(torch.get_num_threads(), ["pellucid", "torch"]),
        "native": native.built().reason,
        "numbers": NUMBERS,
        "rounds": rounds,
        "rows": [summarise(name, times, bits[name]) for name in ready],
        "not_measured": failed,
    }


def summarise(name: str, times: dict[str, list[float]], bits: float) -> dict[str, Any]:
    mine, base = times[name], times["torch bf16"]
    median = statistics.median(mine)
    return {
        "name": name,
        "ms": {"median": 1e3 * median, "min": 1e3 * min(mine), "max": 1e3 * max(mine)},
        "bytes_per_s": NUMBERS * bits / 8 / median,
        "speedup": statistics.median(b / m for b, m in zip(base, mine, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    words = parser.parse_args()
    report = measure(words.rounds, compiled=words.compiled)
    for row in report["rows"]:
        ms = row["ms"]
        print(
            f"{row['name']:<22} {ms['median']:6.2f} ms ({ms['min']:.2f} … {ms['max']:.2f})  "
            f"{row['bytes_per_s'] / 1e9:5.1f} GB/s  x {row['speedup']:.2f}"
        )
    for name, reason in report["not_measured"].items():
        print(f"{name}: not measured: {reason}")
    if words.json:
        words.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
