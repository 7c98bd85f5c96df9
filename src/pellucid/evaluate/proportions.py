"""Shares of right answers, and how the shares of two models on the same items differ: score intervals. No torch."""

from __future__ import annotations

import math
from statistics import NormalDist

_HALVINGS = 60


def wilson(share: float, count: float, level: float) -> tuple[float, float]:
    """Of a share of `count` tries: the true shares from which this one is no farther than chance goes.

    Source: Wilson 1927, JASA 22(158).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return 0.0 if share <= 0 else max(0.0, centre - reach), 1.0 if share >= 1 else min(1.0, centre + reach)


def tango(gained: float, lost: float, count: float, level: float) -> tuple[float, float]:
    """Of (gained - lost) / count: the true differences of paired shares from which this one is no farther than chance.

    gained, lost: items that the second has right and the first has not, and the other way round, of `count` items.
    They need not be whole numbers. The bounds lie within [-1, 1] and are never equal, be the two ever so alike, and
    those of the exchanged pair are their mirror image. 0 lies outside exactly where McNemar's test rejects it.

    Source: Tango 1998, Statistics in Medicine 17(8).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    return -_tango_upper(lost, gained, count, z), _tango_upper(gained, lost, count, z)


def _tango_upper(gained: float, lost: float, count: float, z: float) -> float:
    """The difference d above (gained - lost) / count at which the score statistic is -z, by halving.

    The statistic: (gained - lost - n·d) / √(n (2q + d (1 - d))), q the likeliest share of lost items under d.
    """
    low, high = min(1.0, (gained - lost) / count), 1.0
    for _ in range(_HALVINGS):
        d = (low + high) / 2
        b = (2 * count - gained + lost) * d - gained - lost
        c = -lost * d * (1 - d)
        q = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
        spread = math.sqrt(max(0.0, count * (2 * q + d * (1 - d))))
        is_beyond = gained - lost - count * d < -z * spread
        low, high = (low, d) if is_beyond else (d, high)
    return high
