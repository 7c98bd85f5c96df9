"""How did the loss of a run fall? `metrics.jsonl` of a run directory → a picture.

Every update's loss, its running median, and the validation loss, in nats a token against minutes of training. A
dashed line is ln V: what a model that knows nothing has.

    pip install matplotlib
    python docs/draw_loss.py runs/tinystories-22m-001 --out docs/pictures/prose.png
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from pellucid import tokenizers
from pellucid.checkpoint import newest_valid
from pellucid.train.run_files import METRICS, read_facts

WINDOW = 15
"""Updates whose median is one point of the line."""


def vocabulary(run: Path) -> int:
    """Ids of the run's newest checkpoint's tokenizer."""
    newest, faults = newest_valid(run)
    if newest is None:
        raise SystemExit("\n".join([f"{run}: there is no checkpoint to read the vocabulary from", *faults]))
    return tokenizers.load(newest / "tokenizer").vocab_size


def column(facts: Iterable[dict[str, Any]], key: str) -> list[float]:
    return [fact[key] for fact in facts]


def draw(run: Path, out: Path) -> None:
    facts = list(read_facts(run / METRICS))
    steps = [fact for fact in facts if fact["event"] == "step" and fact["loss"] is not None]
    evaluations = [fact for fact in facts if fact["event"] == "evaluation"]
    minutes, losses = [s / 60 for s in column(steps, "elapsed_seconds")], column(steps, "loss")
    half = WINDOW // 2
    smooth = [statistics.median(losses[max(0, n - half) : n + half + 1]) for n in range(len(losses))]
    mpl.rcParams["svg.hashsalt"] = run.name  # the same run, the same bytes
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(minutes, losses, ".", markersize=2, color="#9db8d2", label="training, an update")
    axes.plot(minutes, smooth, color="#1f5fa0", label=f"training, median of {WINDOW}")
    at = [s / 60 for s in column(evaluations, "elapsed_seconds")]
    axes.plot(at, column(evaluations, "val_loss"), "o-", color="#c2410c", markersize=4, label="validation")
    knows_nothing = math.log(vocabulary(run))
    axes.axhline(knows_nothing, linestyle="--", linewidth=1, color="gray")
    axes.annotate(f"ln V = {knows_nothing:.2f}", (1, knows_nothing), xycoords=("axes fraction", "data"),
                  xytext=(-4, -12), textcoords="offset points", ha="right", color="gray")  # fmt: skip
    last = evaluations[-1]
    axes.set(
        xlabel="minutes of training",
        ylabel="loss, nats a token",
        title=f"{run.name}, {steps[-1]['step']:,} updates: {last['val_loss']:.3f} nats a token, "
        f"{last['bits_per_byte']:.3f} bits a byte on {last['val_tokens']:,} validation tokens",
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120, metadata={"Date": None} if out.suffix == ".svg" else None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--out", type=Path, required=True, help=".svg or .png")
    options = parser.parse_args()
    draw(options.run, options.out)
