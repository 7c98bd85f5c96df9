"""Every random draw as a pure function of (seed, purpose, where it is used).

Nothing here is a stream that must be replayed: the draw for step 1000 is made without making the 999
before it, so a resumed run continues with the same draws as an uninterrupted one. torch is imported only
by the functions that return or change a torch generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_MASK_63 = (1 << 63) - 1


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit integer that depends on the seed and on every word of the purpose, and on nothing else.

    `derive(seed, "shuffle", epoch, block)`: equal words give an equal value on every machine and version.
    """
    text = "\x1f".join([str(seed), *(f"{type(word).__name__}:{word}" for word in purpose)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK_63


def uniform(seed: int, *purpose: str | int) -> float:
    """A number in [0, 1) with 53 random bits, that depends on the same as `derive`."""
    return (derive(seed, *purpose) >> 10) * 2.0**-53


def permutation(count: int, key: int) -> NDArray[np.int64]:
    """A permutation of range(count), drawn by sorting SplitMix64 hashes of (key, index).

    numpy's own generators may change their streams between versions; this does not, so the order of a
    run's data is the same for as long as the run's seed is.  Source: Steele et al. 2014 (SplitMix).
    """
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return np.argsort(state, kind="stable").astype(np.int64, copy=False)


def torch_generator(device: str | torch.device, seed: int, *purpose: str | int) -> torch.Generator:
    """A torch generator on the device, seeded for this purpose."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


def seed_torch(seed: int, *purpose: str | int) -> None:
    """Seed torch's global generators (what dropout draws from) for this purpose."""
    import torch

    torch.manual_seed(derive(seed, *purpose))
