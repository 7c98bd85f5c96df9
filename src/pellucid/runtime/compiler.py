"""Whether torch.compile works here: a compiler that is found may still lack headers, or be no compiler at all."""

from __future__ import annotations

import warnings
from functools import cache

import torch

_LONGEST = 200
"""Characters of a fault: it is one line among the reasons of a plan."""


@cache
def compiler_fault(device_type: str) -> str | None:
    """Build a kernel of one line and run it; what the compiler said where that failed, in one line.

    Seconds the first time, of which most is the import that a compiled run needs in any case; later inductor's own
    cache on the disk has the kernel. Asked only before a run that would compile.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's own, which are errors in some processes
            torch.compile(_kernel, dynamic=False, fullgraph=True)(torch.ones(64, device=device_type))
    except Exception as error:  # whatever a compiler, a loader or torch itself raises: eager training works
        return f"kernels cannot be built: {_useful_line(error)}"
    return None


def _kernel(x: torch.Tensor) -> torch.Tensor:
    return (2 * x).sin() + 1


def _useful_line(error: Exception) -> str:
    """The compiler's first error, where its output is in the message; else the message's first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    chosen = next((line for line in lines if "error: " in line), lines[0])
    return chosen if len(chosen) <= _LONGEST else f"{chosen[: _LONGEST - 1]}…"
