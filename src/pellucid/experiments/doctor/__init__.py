"""`pellucid doctor`: this machine, what would be used on it and why, and whether it computes rightly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.experiments.doctor.choices import Choice, choices
from pellucid.experiments.doctor.libraries import Library, libraries
from pellucid.experiments.doctor.machine import MachineFacts, look_around
from pellucid.experiments.doctor.selftest import SelfTest, self_test
from pellucid.runtime.device import choose_device
from pellucid.runtime.precision import choose_precision
from pellucid.train.rundir import RUNS

NEVER_RUN = (
    "CUDA: its choices are tested with made-up machines; no kernel has run on a GPU",
    "Apple's MPS: the same; a run there begins by comparing logits and gradients with the CPU",
    "Windows: its choices are tested with made-up machines",
)
"""What the project itself has not been able to run. The README says the same."""


@dataclass(frozen=True)
class Diagnosis:
    machine: MachineFacts
    libraries: tuple[Library, ...]
    choices: tuple[Choice, ...]
    self_test: SelfTest
    never_run: tuple[str, ...] = NEVER_RUN

    @property
    def passed(self) -> bool:
        return self.self_test.passed

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for value, comparison in zip(
            values["self_test"]["comparisons"], self.self_test.comparisons, strict=True
        ):
            value["passed"] = comparison.passed
        return {"passed": self.passed, **values}


def diagnose(*, device: str | None = None, full: bool = False, runs: Path = RUNS) -> Diagnosis:
    """Look at the machine and test its arithmetic; a second or two.

    device: as for training; full: also build kernels with the compiler and, where it works, compare them with eager
    ones (tens of seconds). runs: where checkpoints would go, for the free space of that disk. Raises ConfigError for a
    device that is not here.
    """
    chosen = choose_device(device).tried() if full else choose_device(device)
    precision = choose_precision("auto", chosen)
    return Diagnosis(
        machine=look_around(runs),
        libraries=libraries(),
        choices=choices(chosen, precision),
        self_test=self_test(chosen, precision, compiles=full and chosen.can_compile),
    )
