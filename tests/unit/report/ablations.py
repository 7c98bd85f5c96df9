"""Ablations whose runs are written by hand, so that a test can foresee what they show."""

import math

import numpy as np
from tests.unit.report.run_directories import evaluation, make_run, text_evaluation

from pellucid.report.ablation.analysis import analyse
from pellucid.report.ablation.record import AblationRecord, Cell

NORM, WIDTH = "model.norm.kind", "train.lr"
UNITS = 30


def losses(mean, wobble=0.05):
    """Of each unit, in nats; their mean is exact. Another mean has another pattern, so that no two texts are alike."""
    wave = np.random.default_rng(round(1e9 * mean)).standard_normal(UNITS)
    return mean + wobble * (wave - wave.mean())


def bits(mean):
    """What a mean loss a unit is in bits/byte, with eight bytes a unit."""
    return mean / math.log(2) / 8


def plan(vary, seeds=3, **changes):
    names = list(vary)
    cells = []

    def grow(values):
        if len(values) == len(names):
            name = "-".join(values.values())
            words = tuple(f"{k}={v}" for k, v in values.items())
            cells.append(
                Cell(name=name, values=values, overrides=words, parameters=1234, flops=1e6, steps=100)
            )
            return
        key = names[len(values)]
        for level in vary[key]:
            grow({**values, key: level})

    grow({})
    return AblationRecord(**{"preset": "quick", "vary": vary, "seeds": tuple(range(seeds)), "match": "steps",
                             "cells": tuple(cells), **changes})  # fmt: skip


def make(directory, record, mean_of, *, sha_of=lambda cell: "a" * 64, skip=(), wobble=None):
    """Every run of the plan, scored. mean_of: (values, seed) → the mean loss of a unit."""
    record.write(directory)
    for cell in record.cells:
        for seed in record.seeds:
            path = record.run_directory(directory, cell, seed)
            if path.name not in skip:
                shaken = losses(mean_of(cell.values, seed), *([wobble(cell.values)] if wobble else []))
                scored = {"val": evaluation(text_evaluation(shaken, sha=sha_of(cell)))}
                samples = [{"step": 100, "prompt": "x", "text": f"written by {path.name}"}]
                make_run(path, evaluations=scored, samples=samples)
    return analyse(directory)


SEEDS = (0.0, 0.3, -0.1)
GAIN = (0.10, 0.14, 0.12)
"""By seed: what layernorm loses against rmsnorm."""


def one_key(directory, **changes):
    record = plan({NORM: ("rmsnorm", "layernorm")}, **changes)
    return make(directory, record, lambda v, s: 10 + SEEDS[s] + (v[NORM] == "layernorm") * GAIN[s])
