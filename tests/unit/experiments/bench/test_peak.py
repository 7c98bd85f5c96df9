"""What utilisation is measured against."""

import torch

from pellucid.experiments.bench import peak
from pellucid.runtime.device import choose_device


def test_each_shape_has_its_own_rate_by_the_least_time(monkeypatch):
    monkeypatch.setattr(peak, "_CPU_SHAPES", ((10, 20, 30),))
    seconds = iter([0.5, *[3.0] * 3, 2.0, *[4.0] * 3])  # the first is to warm up
    monkeypatch.setattr(peak, "_time_product", lambda *_: next(seconds))
    rates = peak.gemm_flops_per_s(torch.float32, choose_device("cpu"))
    assert rates == {"10x20x30": 2 * 10 * 20 * 30 / 2.0}
