"""In the time nanoGPT's CPU recipe needs for character-level Shakespeare, how much lower does Pellucid get?

For each seed, interleaved and each in a fresh process: the peer (`peers/nanogpt_char.py`), then
`pellucid train shakespeare-char` with `train.max_seconds` = the peer's training seconds of that seed.
Pellucid starts with an empty compile cache, so its time includes compilation. Both last models are
scored on the whole last 10 % of the text by the same function, with at most 64 characters of context:

    windows   non-overlapping windows of 64: 1 to 64 characters of context
    sliding   windows of 64 every 32: 33 to 64 characters of context (fewer only in the first window)

A third score gives Pellucid the longer context it was trained with; the peer has no such thing.

    python benchmarks/shakespeare_char.py --json result.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from peers import nanogpt_char as peer
from pellucid import checkpoint
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource

FIRST_SEED = 1337
STRIDE_DIVISORS = {"windows": 1, "sliding": 2}
MEASURES = {  # key in the results: label, digits
    "val_loss_windows": (f"loss, windows of {peer.CONTEXT}", 4),
    "val_loss_sliding": (f"loss, sliding {peer.CONTEXT}", 4),
    "val_loss_own_context": ("loss, sliding, own longer context", 4),
    "train_seconds": ("seconds to train = Pellucid's limit", 1),
    "process_seconds": ("seconds, whole process", 1),
}
SIDES = ("peer", "pellucid", "difference")

Result = dict[str, Any]


def run(command: list[str], threads: int, scratch: Path) -> tuple[str, float]:
    """Standard output and wall seconds of a fresh process. Ends the benchmark when the process fails."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": tempfile.mkdtemp(prefix="inductor-", dir=scratch),
    }
    print("running", *command, file=sys.stderr)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"it ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout, round(seconds, 3)


def run_peer(text_file: Path, seed: int, steps: int, threads: int, scratch: Path) -> Result:
    """The peer's own JSON, and the seconds of its whole process."""
    words = [f"--text={text_file}", f"--seed={seed}", f"--steps={steps}", f"--threads={threads}", "--json"]
    output, seconds = run([sys.executable, peer.__file__, *words], threads, scratch)
    return {**json.loads(output), "process_seconds": seconds}


def run_pellucid(text_file: Path, seed: int, max_seconds: float, threads: int, scratch: Path) -> Result:
    """Train for `max_seconds`, then score the last checkpoint: like the peer, not the best on this text."""
    run_dir = scratch / f"pellucid-{seed}"
    overrides = [
        f"data.path={text_file}",
        "data.val_fraction=0.1",  # the peer's split, whatever the preset says
        f"data.cache_dir={scratch / 'prepared'}",
        "train.steps=",  # time alone ends it
        f"train.max_seconds={max_seconds}",
        f"train.seed={seed}",
        f"run.dir={run_dir}",
    ]
    command = [sys.executable, "-m", "pellucid", "train", "shakespeare-char", *overrides, "--json"]
    _, seconds = run(command, threads, scratch)

    text = text_file.read_bytes().decode("utf-8")
    val_text = text[int(len(text) * peer.TRAIN_FRACTION) :]
    last, faults = checkpoint.newest_valid(run_dir)
    if last is None or faults:
        sys.exit("\n".join([f"{run_dir}: the last checkpoint cannot be scored", *faults]))
    config = checkpoint.load_config(last)
    own_context = config["train"].get("seq_len", config["model"]["max_seq_len"])
    return {
        "name": "pellucid train shakespeare-char",
        "max_seconds": max_seconds,
        "process_seconds": seconds,
        "own_context": own_context,
        "val_loss_windows": score(last, val_text, "windows", peer.CONTEXT),
        "val_loss_sliding": score(last, val_text, "sliding", peer.CONTEXT),
        "val_loss_own_context": score(last, val_text, "sliding", own_context),
    }


def score(checkpoint_dir: Path, text: str, rule: str, context: int) -> float:
    """Mean nats a character of a Pellucid checkpoint, by the very function that scores the peer."""
    loaded = checkpoint.load(checkpoint_dir)
    ids = torch.from_numpy(loaded.tokenizer.encode(text).astype(np.int64))
    if len(ids) != len(text):
        sys.exit(f"{checkpoint_dir}: {len(ids)} ids for {len(text)} characters; one id a character is needed")
    return peer.mean_nats(loaded.model, ids, context, context // STRIDE_DIVISORS[rule])


def values_by_side(runs: list[Result], key: str) -> dict[str, list[float]]:
    """A measure of every seed for each side that has it, and Pellucid's minus the peer's where both do."""
    sides = {side: [r[side][key] for r in runs] for side in ("peer", "pellucid") if key in runs[0][side]}
    if len(sides) == 2:
        sides["difference"] = [ours - theirs for theirs, ours in zip(*sides.values(), strict=True)]
    return sides


def mean_and_spread(values: list[float]) -> dict[str, float | None]:
    """The mean and the sample standard deviation (None for a single value)."""
    return {"mean": statistics.mean(values), "spread": statistics.stdev(values) if len(values) > 1 else None}


def draw(runs: list[Result]) -> Table:
    """For each measure one row a seed, then mean ± sample standard deviation."""
    table = Table(title="Loss in nats a character over the last 10 % of the text")
    table.add_column("measure", no_wrap=True)
    for name in ("seed", "nanoGPT recipe", "Pellucid", "difference"):
        table.add_column(name, justify="right")
    for key, (label, digits) in MEASURES.items():
        sides = values_by_side(runs, key)
        for i, result in enumerate(runs):
            cells = [f"{sides[side][i]:.{digits}f}" if side in sides else "–" for side in SIDES]
            table.add_row("" if i else label, str(result["seed"]), *cells, end_section=len(runs) == 1)
        if len(runs) > 1:
            whole = {side: mean_and_spread(values) for side, values in sides.items()}
            cells = [
                f"{whole[side]['mean']:.{digits}f} ± {whole[side]['spread']:.{digits}f}"
                if side in whole
                else "–"
                for side in SIDES
            ]
            table.add_row("", "mean", *cells, style="bold", end_section=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a UTF-8 text file (default: the built-in corpus)")
    parser.add_argument("--seeds", type=int, default=3, help=f"how many, from {FIRST_SEED} on")
    parser.add_argument(
        "--steps", type=int, default=2000, help="the peer's; fewer only to try the script out"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    arguments = parser.parse_args()

    runs: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="shakespeare-char-") as folder:
        scratch = Path(folder)
        text_file = scratch / "text.txt"
        if arguments.text:
            text_file.write_bytes(arguments.text.read_bytes())
        else:
            text_file.write_bytes("".join(texts(BuiltinSource("shakespeare"))).encode("utf-8"))
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            theirs = run_peer(text_file, seed, arguments.steps, arguments.threads, scratch)
            ours = run_pellucid(text_file, seed, theirs["train_seconds"], arguments.threads, scratch)
            runs.append({"seed": seed, "peer": theirs, "pellucid": ours})
            print(json.dumps(runs[-1]), file=sys.stderr)

    if arguments.json:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__}
        summary = {
            key: {side: mean_and_spread(values) for side, values in values_by_side(runs, key).items()}
            for key in MEASURES
        }
        report = {"machine": {**machine, "threads": arguments.threads}, "runs": runs, "summary": summary}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    Console().print(draw(runs))


if __name__ == "__main__":
    main()
