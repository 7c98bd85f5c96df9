"""How fast main memory is read here: what a decoder that reads all its weights once a token can reach at most.

    python benchmarks/generation/bandwidth.py --mib 512 --threads 2

Bytes a second of two readings of float32 numbers that no cache holds, by all threads: their sum, and their product
with a vector, which is what a decoder does. The least time of several, since a machine's other work only ever makes
a reading slower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

REPEATS = 7
WIDTH = 4096


def bytes_per_s(mib: int) -> dict[str, float]:
    """By how it was read."""
    numbers = torch.ones(mib * 2**20 // 4 // WIDTH, WIDTH)
    vector = torch.ones(WIDTH)
    size = numbers.numel() * 4
    ways = {"sum": numbers.sum, "matrix by vector": lambda: torch.mv(numbers, vector)}
    return {name: size / least_time(read) for name, read in ways.items()}


def least_time(read: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    with torch.inference_mode():
        print(json.dumps(bytes_per_s(words.mib)))


if __name__ == "__main__":
    main()
