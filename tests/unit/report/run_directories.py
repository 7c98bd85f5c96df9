"""Run directories as training leaves them, with numbers that a test can foresee."""

import json
import math

import numpy as np
import tomli_w

from pellucid.evaluate.record import Evaluation, TaskEvaluation, TextEvaluation, UnitScores

CONFIG = {
    "model": {"kind": "decoder", "d_model": 16, "norm": {"kind": "rmsnorm"}},
    "data": {"path": "builtin:shakespeare"},
    "train": {"steps": 100, "lr": 0.01},
    "run": {"name": "tiny"},
}


def loss_at(step, base=1.0):
    return base + 4 * math.exp(-step / 10)


def facts(steps=100, *, base=1.0, end="finished", flops_per_token=600, every=25):
    yield {"event": "start", "step": 0, "run": "r", "steps": 100, "parameters": 1234, "device": "cpu",
           "precision": "fp32", "batch_tokens": 64, "flops_per_token": flops_per_token}  # fmt: skip
    for step in range(1, steps + 1):
        yield {"event": "step", "step": step, "loss": loss_at(step, base), "lr": 0.01, "grad_norm": 2.0,
               "tokens": 64 * step, "elapsed_seconds": 0.5 * step, "step_seconds": 0.5}  # fmt: skip
        if step % every == 0:
            loss = loss_at(step, base) + 0.25
            yield {"event": "evaluation", "step": step, "val_loss": loss, "perplexity": math.exp(loss),
                   "bits_per_byte": loss / math.log(2), "elapsed_seconds": 0.5 * step}  # fmt: skip
    if end:
        yield {"event": "end", "step": steps, "reason": end, "elapsed_seconds": 0.5 * steps, "tokens": 64 * steps,
               "peak_memory_bytes": 5_000_000}  # fmt: skip


def text_evaluation(losses, *, sha="a" * 64, data="validation"):
    count = len(losses)
    units = UnitScores(np.array(losses, dtype=np.float64), np.full(count, 10), np.full(count, 8))
    return TextEvaluation(data, sha, "tokenizer", "document", 64, 64, units)


def task_evaluation(right=30, of=40):
    acc = np.array([1.0] * right + [0.0] * (of - right))
    return TaskEvaluation("piqa", "b" * 64, {"acc": acc}, {"acc": "mean"}, {"acc": 0.5})


def evaluation(*texts, tasks=(), notes=()):
    return Evaluation("m", "0" * 64, 1234, "fp32", "", texts, tasks, "2026-01-01T00:00:00", notes)


def make_run(path, told=None, *, config=None, samples=None, evaluations=None, **settings):
    """Write a run directory; settings: those of `facts`."""
    path.mkdir(parents=True)
    lines = list(facts(**settings)) if told is None else told
    (path / "metrics.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in lines))
    (path / "config.toml").write_text(tomli_w.dumps(config or CONFIG))
    (path / "environment.json").write_text(json.dumps({"torch": "2.13", "threads": 2}))
    (path / "data.json").write_text(json.dumps({"tokenizer": {"kind": "byte"}}))
    if samples:
        (path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    for name, found in (evaluations or {}).items():
        found.write(path / "evaluations" / f"{name}.json")
    return path
