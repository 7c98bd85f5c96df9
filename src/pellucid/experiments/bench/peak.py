"""The most that matrix products reach on this machine: what utilisation is measured against."""

from __future__ import annotations

import time

import torch

from pellucid.runtime.device import Device

_CPU_SHAPES = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (2048, 384, 1024),
    (2048, 768, 3072),
    (1024, 3072, 768),
)
_GPU_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096))
_REPEATS = 7


def gemm_flops_per_s(dtype: torch.dtype, device: Device) -> dict[str, float]:
    """For several shapes M x K x N, the FLOP/s that x Wᵀ reaches as a linear layer computes it: 2 M K N by least time.

    The least time and not the median, since whatever else a machine does only ever makes a product slower.
    """
    found: dict[str, float] = {}
    for rows, inner, columns in _CPU_SHAPES if device.type == "cpu" else _GPU_SHAPES:
        x = torch.randn(rows, inner, dtype=dtype, device=device.torch)
        weight = torch.randn(columns, inner, dtype=dtype, device=device.torch)
        seconds = [_time_product(x, weight, device) for _ in range(1 + _REPEATS)][1:]
        flops = 2 * rows * inner * columns
        found[f"{rows}x{inner}x{columns}"] = flops / min(seconds)
    return found


@torch.no_grad()
def _time_product(x: torch.Tensor, weight: torch.Tensor, device: Device) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(x, weight)
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began
