"""The arithmetic of this machine on a tiny model: against the CPU in float64, narrow formats, kernels, the cache."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pellucid.experiments.doctor.update import compare_updates
from pellucid.model import DecoderLM
from pellucid.runtime.device import Device
from pellucid.runtime.precision import Precision
from pellucid.train.building import CUBLAS_WORKSPACE
from pellucid.train.numerics import (
    TOLERANCE_FP32,
    TOLERANCE_NARROW,
    Comparison,
    compare,
    compare_with_cpu,
    relative_error,
    run_pass,
    tiny_ids,
    tiny_model,
)


@dataclass(frozen=True)
class SelfTest:
    comparisons: tuple[Comparison, ...]
    undetermined: tuple[str, ...]
    """What torch said of operations without a deterministic form in these passes."""

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons)


def self_test(
    device: Device,
    precision: Precision,
    *,
    compiles: bool = False,
    build: Callable[[], DecoderLM] = tiny_model,
) -> SelfTest:
    """Compare what a run of a decoder here would compute with by default: the device, its number format, a training
    update with its techniques and optimizer, cached decoding. compiles: compiled blocks too.
    """
    where = device.torch
    with _deterministic() as undetermined:
        found = [*compare_with_cpu(where, build)]
        plain = run_pass(build(), where)
        if precision.name != "fp32":
            narrow = run_pass(build(), where, context=precision.autocast())
            found += compare(f"{precision.name} against fp32", narrow, plain, TOLERANCE_NARROW)
        found += compare_updates(precision, plain, build)
        if compiles:
            compiled = run_pass(_compiled(build()), where)
            found += compare("compiled blocks against eager ones", compiled, plain, TOLERANCE_FP32)
        again = run_pass(build(), where)
        found += compare("the same pass twice, to the bit", again, plain, 0.0)
        found.append(_cached_against_uncached(build().to(where)))
    return SelfTest(tuple(found), tuple(undetermined))


def _compiled(model: DecoderLM) -> DecoderLM:
    for block in model.all_blocks:
        block.compile(dynamic=False)
    return model


@torch.no_grad()
def _cached_against_uncached(model: DecoderLM) -> Comparison:
    """One id at a time into the cache, against all of them at once."""
    ids = tiny_ids().to(model.device)
    cache = model.new_cache(len(ids))
    steps = [model.head(model.hidden(column, cache=cache).states) for column in ids.split(1, dim=1)]
    error = relative_error(torch.cat(steps, dim=1).cpu().double(), model(ids).cpu().double())
    return Comparison("logits, cached decoding against uncached", error, TOLERANCE_FP32)


@contextmanager
def _deterministic() -> Generator[list[str]]:
    """Deterministic algorithms as in training; what torch says of those that are not is collected."""
    before = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    said: list[str] = []
    os.environ.setdefault(*CUBLAS_WORKSPACE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield said
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns_only)
            words = (str(warning.message).splitlines()[0] for warning in caught)
            said += dict.fromkeys(line for line in words if "deterministic" in line)
