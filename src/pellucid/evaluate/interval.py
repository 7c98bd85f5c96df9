"""A measured value and the bounds of the true one. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds between which the true one lies in `level` of all cases."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @property
    def half(self) -> float:
        """Half its width, for "value ± half"."""
        return (self.high - self.low) / 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
