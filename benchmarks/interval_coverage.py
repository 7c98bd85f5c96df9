"""Which interval covers? Ways to bound a ratio over documents, each tried on thousands of texts with a known truth.

Prints how often a 95 % interval contains the true ratio, and the share of misses below and above it. Seed 0, for
the texts as for the draws.

    python benchmarks/interval_coverage.py [--replications 2000] [--documents 20 50 200]
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist

import numpy as np

from pellucid.evaluate.bootstrap import studentised
from pellucid.evaluate.student import t_quantile

DRAWS = 2000
NORMAL = NormalDist()


def texts(
    shape: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """(losses, tokens or bytes, the true ratio) of documents, [replications, documents] each."""
    spread = 1.5 if shape == "log-normal 0.8, longer lengths" else 1.0
    tokens = np.maximum(1, np.round(rng.lognormal(5, spread, size)))
    if shape == "log-normal 0.3":
        return rng.lognormal(0, 0.3, size) * rng.gamma(tokens), tokens, math.exp(0.045)
    if shape.startswith("log-normal 0.8"):
        return rng.lognormal(0, 0.8, size) * rng.gamma(tokens), tokens, math.exp(0.32)
    if shape == "t3, one side":
        means = 1 + np.abs(rng.standard_t(3, size)) / 2
        return means * rng.gamma(tokens), tokens, 1 + math.sqrt(3) / math.pi
    if shape == "bits a byte":
        a_token = rng.lognormal(1.4, 0.2, size)
        means = 0.3 * a_token + rng.lognormal(0, 0.5, size)
        return means * rng.gamma(tokens), tokens * a_token, 0.3 + math.exp(0.125) / math.exp(1.42)
    if shape == "paired, t3":
        each = 0.02 + 0.1 * rng.standard_t(3, size)
        return tokens * each + np.sqrt(tokens) * rng.standard_t(3, size), 4.2 * tokens, 0.02 / 4.2
    if shape == "paired, t3 of log-normal":
        each = 0.02 + 0.05 * rng.standard_t(3, size) * rng.lognormal(0, 0.8, size)
        return tokens * each + 0.5 * np.sqrt(tokens) * rng.standard_normal(size), 4.2 * tokens, 0.02 / 4.2
    each = 0.02 + 0.2 * (rng.lognormal(0, 0.6, size) - math.exp(0.18))
    return tokens * each + np.sqrt(tokens) * rng.standard_normal(size), 4.2 * tokens, 0.02 / 4.2


SHAPES = (
    "log-normal 0.3",
    "log-normal 0.8",
    "log-normal 0.8, longer lengths",
    "t3, one side",
    "bits a byte",
    "paired, t3",
    "paired, t3 of log-normal",
    "paired, skewed",
)


def others(tops: np.ndarray, bottoms: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The bounds of the ways that were not kept."""
    units = tops.shape[1]
    total = bottoms.sum(1)
    ratio = tops.sum(1) / total
    residuals = tops - ratio[:, None] * bottoms
    error = np.sqrt(units / (units - 1) * (residuals**2).sum(1)) / total
    rng = np.random.default_rng(0)
    weights = np.stack([np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(DRAWS)])
    weights = weights.astype(float)
    drawn = weights @ bottoms.T
    shift = weights @ residuals.T / drawn
    products = weights @ (residuals * bottoms).T
    squared = weights @ (residuals**2).T - 2 * shift * products + shift**2 * (weights @ (bottoms**2).T)
    t = shift * drawn / np.sqrt(units / (units - 1) * np.maximum(squared, 1e-300))
    low, high = np.quantile(t, [0.025, 0.975], axis=0)
    reach = np.quantile(np.abs(t), 0.95, axis=0) * error
    student = t_quantile(0.975, units - 1) * error
    percentile = np.quantile(ratio + shift, [0.025, 0.975], axis=0)
    return {
        "Student's t": (ratio - student, ratio + student),
        "percentile": (percentile[0], percentile[1]),
        "BCa": bca(tops, bottoms, ratio, shift),
        "bootstrap-t": (ratio - high * error, ratio - low * error),
        "symmetric bootstrap-t": (ratio - reach, ratio + reach),
    }


def bca(
    tops: np.ndarray, bottoms: np.ndarray, ratio: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Efron 1987: percentiles moved by the bias and by the skewness of the jackknife."""
    without = (tops.sum(1, keepdims=True) - tops) / (bottoms.sum(1, keepdims=True) - bottoms)
    centred = without.mean(1, keepdims=True) - without
    skew = (centred**3).sum(1) / (6 * (centred**2).sum(1) ** 1.5)
    share = np.clip((shift < 0).mean(0), 1 / DRAWS, 1 - 1 / DRAWS)
    bias = np.array([NORMAL.inv_cdf(value) for value in share])
    ordered = np.sort(ratio + shift, axis=0)
    bounds = []
    for z in (NORMAL.inv_cdf(0.025), NORMAL.inv_cdf(0.975)):
        places = [NORMAL.cdf(value) for value in bias + (bias + z) / (1 - skew * (bias + z))]
        index = np.clip((np.array(places) * DRAWS).astype(int), 0, DRAWS - 1)
        bounds.append(ordered[index, np.arange(len(ratio))])
    return bounds[0], bounds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--documents", type=int, nargs="+", default=[20, 50, 200])
    words = parser.parse_args()
    for documents in words.documents:
        header = None
        for shape in SHAPES:
            size = (words.replications, documents)
            tops, bottoms, truth = texts(shape, size, np.random.default_rng(0))
            found = others(tops, bottoms) | {"**kept**": studentised(tops, bottoms, replicates=DRAWS)}
            if header is None:
                header = f"| {documents} documents | {' | '.join(found)} |"
                print(f"\n{header}\n|{'---|' * (len(found) + 1)}")
            cells = [
                f"{100 * ((low <= truth) & (truth <= high)).mean():.1f}"
                f" ({100 * (truth < low).mean():.1f}/{100 * (truth > high).mean():.1f})"
                for low, high in found.values()
            ]
            print(f"| {shape} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
