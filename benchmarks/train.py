"""How fast and how lean is training, beside the libraries that people train the same model with?

Every variant is measured in rounds: A B C …, A B C …, each time in a fresh process with a few steps to warm up.
Same width, depth, heads, vocabulary and batch of random ids for all, cross-entropy as each library's users compute
it, gradients clipped to norm 1, one update a batch, no dropout. Our rows are `pellucid bench train --only …`; the
peers' are `peers/training.py`, which says what its settings are. "forward only" scores a batch as an
evaluation does: not compiled, logits in float32. What is not installed is listed as such.

    tokens/s    median over rounds of a round's median step, and the slowest and fastest round
    ratio       to the base's of the same round: median over rounds, lowest and highest. The base is the first row asked
                for that trains; where it cannot be measured there are no ratios, and a forward pass alone has none
    peak        resident memory of the process, the highest of all rounds
    MFU         FLOPs of the model's matrix products a second, by the fastest matrix product of that dtype, which is
                measured in every round too (the best of all rounds and of several shapes)
    CPU         CPU time by wall time and thread: below 100 % something else held the process up
    first step  seconds, kernels included: with an empty compile cache, and with the one of the round before

The exit status is 1 if something that is installed could not be measured.

    python benchmarks/train.py --size 22m --json benchmarks/results/train-22m.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from faults import what_happened
from machine import describe_machine, is_installed
from pellucid.cli.main import SPIN_COUNT

PEERS = Path(__file__).parent / "peers" / "training.py"
REQUIREMENTS = "benchmarks/requirements.txt"
LIBRARIES = ("pellucid", "torch", "transformers", "x-transformers", "litgpt", "numpy")

Result = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """The shape that all models of a run have in common, and how often it is measured unless asked otherwise."""

    preset: str
    """Ours, whose recipe decides what `pellucid train` would choose."""
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    vocab_size: int
    seq_len: int
    batch: int
    steps: int

    @property
    def shape(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name not in ("preset", "steps")}

    @property
    def words(self) -> list[str]:
        """Our run of this size, at the peers' constant learning rate."""
        return [
            self.preset,
            f"model.d_model={self.d_model}",
            f"model.num_layers={self.num_layers}",
            f"model.num_heads={self.num_heads}",
            f"model.feed_forward.d_ff={self.d_ff}",
            f"model.vocab_size={self.vocab_size}",
            f"model.max_seq_len={self.seq_len}",
            f"train.seq_len={self.seq_len}",
            f"train.batch_tokens={self.batch * self.seq_len}",
            "train.lr=1e-3",
            "train.schedule.kind=constant",
            "train.schedule.warmup_steps=0",
        ]


SIZES = {
    "22m": Size("tinystories-22m", 384, 8, 6, 1024, 21_504, 256, 8, steps=10),
    "124m": Size("sota-125m", 768, 12, 12, 2048, 50_304, 512, 2, steps=4),
    "tiny": Size("quick", 96, 2, 2, 256, 512, 32, 4, steps=3),  # to try the script out
}


@dataclass(frozen=True)
class Ours:
    """A row of `pellucid bench train`, with some keys changed."""

    name: str
    overrides: tuple[str, ...] = ()
    row: str = "training"
    package: str = "pellucid"

    @property
    def is_training(self) -> bool:
        """Whether a step is a whole update, which alone can be set beside another's."""
        return self.row != "forward only"

    def command(self, size: Size, steps: int, device: str) -> list[str]:
        words = [*size.words, *self.overrides, "--only", self.row, "--steps", str(steps), "--device", device]
        return [sys.executable, "-m", "pellucid", "bench", "train", *words, "--json"]

    @staticmethod
    def read(output: str) -> Result:
        return json.loads(output)["rows"][0]


@dataclass(frozen=True)
class Peer:
    """A model and a setting of peers/training.py."""

    name: str
    model: str
    setting: str
    package: str
    is_training: ClassVar = True

    def command(self, size: Size, steps: int, device: str) -> list[str]:
        shape = [word for name, n in size.shape.items() for word in (f"--{name.replace('_', '-')}", str(n))]
        chosen = ["--model", self.model, "--setting", self.setting, "--steps", str(steps)]
        return [sys.executable, str(PEERS), *chosen, "--device", device, *shape]

    @staticmethod
    def read(output: str) -> Result:
        return json.loads(output.splitlines()[-1])


def peers(title: str, model: str, package: str, settings: dict[str, str]) -> list[Peer]:
    return [Peer(f"{title}, {label}", model, setting, package) for label, setting in settings.items()]


ALL = {"defaults": "default", "bf16": "bf16", "bf16 + compile + fused AdamW": "compiled"}
ENDS = {label: setting for label, setting in ALL.items() if setting != "bf16"}

VARIANTS: list[Ours | Peer] = [
    *peers("transformers Llama", "llama", "transformers", ALL),
    *peers("transformers GPT-2", "gpt2", "transformers", ALL),
    *peers("nanoGPT style", "nanogpt", "torch", ALL),
    *peers("x-transformers", "x-transformers", "x_transformers", ENDS),
    *peers("litgpt", "litgpt", "litgpt", ENDS),
    Ours("pellucid"),
    Ours("pellucid, forward only", row="forward only"),
    Ours("pellucid, activation checkpointing", row="activation checkpointing"),
]

SWITCHES: list[Ours | Peer] = [
    Ours("pellucid, compile off", ("train.compile=false",)),
    Ours("pellucid, fp32", ("train.precision=fp32",)),
    Ours("pellucid, tiled loss off", ("train.techniques.tiled_loss=false",)),
    Ours("pellucid, kept memory off", ("train.techniques.kept_memory=false",)),
    Ours("pellucid, fused AdamW off", ("train.optimizer.fused=false",)),
    Ours("pellucid, short attention off", ("model.attention.kernel=sdpa",)),
]
"""Our default with one choice of the device policy turned round: what that choice is worth. Asked for by --switches."""


# One turn of one variant ------------------------------------------------------------------------------


def run(command: list[str], environment: dict[str, str]) -> tuple[str, str | None]:
    """Standard output of a fresh process, and what was wrong where it failed."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode == 0:
        return done.stdout, None
    return "", f"status {done.returncode}: {what_happened(done.stderr)}"


def measure_peaks_here(device_name: str) -> None:
    """Print what matrix products reach at most, dtype → shape → FLOP/s."""
    import torch

    from pellucid.experiments.bench.peak import gemm_flops_per_s
    from pellucid.runtime.device import choose_device

    device = choose_device(device_name)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    print(json.dumps({name: gemm_flops_per_s(dtype, device) for name, dtype in dtypes.items()}))


# All of them ------------------------------------------------------------------------------------------


class Benchmark:
    """Rounds of turns, and what has been found so far."""

    def __init__(self, variants: list[Ours | Peer], size: Size, options: argparse.Namespace) -> None:
        self.size, self.options = size, options
        self.steps: int = options.steps or size.steps
        self.base = next((v.name for v in variants if v.is_training), None)
        self.environment = {
            "OMP_NUM_THREADS": str(options.threads),
            # Our command sets it for itself; with libgomp's own, the peers would wait in another way.
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT),
        }
        self.variants = [v for v in variants if is_installed(v.package)]
        self.absent = {
            v.name: f"not installed: see {REQUIREMENTS}" for v in variants if v not in self.variants
        }
        self.failed: dict[str, str] = {}
        self.turns: dict[str, list[Result]] = {variant.name: [] for variant in self.variants}
        self.peaks: list[dict[str, dict[str, float]]] = []
        self.load: list[dict[str, float]] = []

    def round(self, scratch: Path) -> None:
        before = os.getloadavg()[0]
        self.peaks.append(self._peaks())
        for variant in list(self.variants):
            result, fault = self._turn(variant, scratch)
            if fault:
                self.failed[variant.name] = fault
                self.variants.remove(variant)
                del self.turns[variant.name]
                continue
            self.turns[variant.name].append(result)
            print(f"  {variant.name}: {result['tokens_per_s']:,.0f} tokens/s", file=sys.stderr)
        self.load.append({"before": before, "after": os.getloadavg()[0]})

    def _turn(self, variant: Ours | Peer, scratch: Path) -> tuple[Result, str | None]:
        cache = scratch / "".join(
            c if c.isalnum() else "-" for c in variant.name
        )  # so that each pays for its own
        command = variant.command(self.size, self.steps, self.options.device)
        output, fault = run(command, {**self.environment, "TORCHINDUCTOR_CACHE_DIR": str(cache)})
        return ({}, fault) if fault else (variant.read(output), None)

    def _peaks(self) -> dict[str, dict[str, float]]:
        command = [sys.executable, __file__, "--peaks-here", "--device", self.options.device]
        output, fault = run(command, self.environment)
        if fault:
            sys.exit(f"matrix products could not be measured: {fault}")
        return json.loads(output)

    def report(self) -> Result:
        shapes = {dtype: list(of_shape) for dtype, of_shape in self.peaks[0].items()}
        by_shape = {
            dtype: {shape: max(turn[dtype][shape] for turn in self.peaks) for shape in names}
            for dtype, names in shapes.items()
        }
        fastest = {dtype: max(of_shape.values()) for dtype, of_shape in by_shape.items()}
        base = self.turns.get(self.base) if self.base else None
        return {
            "machine": describe_machine(self.options.threads, LIBRARIES) | {"load_by_round": self.load},
            "settings": {
                "size": self.options.size,
                **self.size.shape,
                "steps": self.steps,
                "rounds": len(self.peaks),
                "clipped_to_norm": 1.0,
                "base": self.base,
                "environment": self.environment,
                "command": " ".join(["python", "benchmarks/train.py", *sys.argv[1:]]),
            },
            "peaks": {"flops_per_s": fastest, "by_shape": by_shape},
            "rows": [
                summarise(
                    variant.name,
                    self.turns[variant.name],
                    base if variant.is_training else None,
                    fastest=fastest,
                    batch_tokens=self.size.batch * self.size.seq_len,
                    threads=self.options.threads,
                )
                for variant in self.variants
            ],
            "not_measured": self.absent | self.failed,
        }


def summarise(
    name: str,
    turns: list[Result],
    base: list[Result] | None,
    *,
    fastest: dict[str, float],
    batch_tokens: int,
    threads: int,
) -> Result:
    """One row over all rounds; `base` is what its ratios are to, if it has any."""
    speeds = [turn["tokens_per_s"] for turn in turns]
    ratios = [speed / turn["tokens_per_s"] for speed, turn in zip(speeds, base or [], strict=bool(base))]
    one, median = turns[0], statistics.median(speeds)
    warm = [turn["first_step_s"] for turn in turns[1:]]
    return {
        "name": name,
        "tokens_per_s": median,
        "min_tokens_per_s": min(speeds),
        "max_tokens_per_s": max(speeds),
        "ms_per_step": 1e3 * batch_tokens / median,
        "ratio": statistics.median(ratios) if ratios else None,
        "min_ratio": min(ratios, default=None),
        "max_ratio": max(ratios, default=None),
        "peak_rss_mib": max(turn["peak_rss_mib"] for turn in turns),
        "mfu": median * one["flops_per_token"] / fastest[one["dtype"]],
        "dtype": one["dtype"],
        "parameters": one["parameters"],
        "flops_per_token": one["flops_per_token"],
        "cpu_share": statistics.median(turn["cpu_share"] for turn in turns) / threads,
        "first_step_cold_s": one["first_step_s"],
        "first_step_warm_s": statistics.median(warm) if warm else None,
        "first_loss": one["first_loss"],
        "last_loss": one["last_loss"],
        "is_sane": all(math.isfinite(t["last_loss"]) and t["last_loss"] <= t["first_loss"] for t in turns),
    }


def draw(report: Result) -> Table:
    table = Table("", "tokens/s", "ratio", "peak MiB", "MFU", "CPU", "first step, s", "loss", "parameters")
    for row in report["rows"]:
        ratio, warm = row["ratio"], row["first_step_warm_s"]
        table.add_row(
            row["name"],
            f"{row['tokens_per_s']:,.0f} [{row['min_tokens_per_s']:,.0f} … {row['max_tokens_per_s']:,.0f}]",
            "" if ratio is None else f"{ratio:.2f} [{row['min_ratio']:.2f} … {row['max_ratio']:.2f}]",
            f"{row['peak_rss_mib']:,.0f}",
            f"{row['mfu']:.0%} {row['dtype']}",
            f"{row['cpu_share']:.0%}",
            f"{row['first_step_cold_s']:.1f}" + ("" if warm is None else f" / {warm:.1f}"),
            f"{row['first_loss']:.2f} → {row['last_loss']:.2f}" + ("" if row["is_sane"] else " !"),
            f"{row['parameters'] / 1e6:.2f}M",
        )
    for name, reason in report["not_measured"].items():
        table.add_row(name, escape(reason))
    return table


def only(names: list[str]) -> list[Ours | Peer]:
    """The rows of these names, switches among them; for a name that none has, those that begin so."""
    rows = [*VARIANTS, *SWITCHES]
    whole = {row.name for row in rows}
    starts = tuple(name for name in names if name not in whole)
    return [row for row in rows if row.name in names or (starts and row.name.startswith(starts))]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="22m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="measured steps of a turn (default: by size)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="rows of this name; where none has it, those whose name begins so",
    )
    parser.add_argument("--switches", action="store_true", help="also each of our choices turned round")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="every number, after each round; alone: printed"
    )
    parser.add_argument("--peaks-here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peaks_here:
        measure_peaks_here(options.device)
        return 0
    variants = [*VARIANTS, *(SWITCHES if options.switches else [])]
    if options.only:
        variants = only(options.only)
    benchmark, report = Benchmark(variants, SIZES[options.size], options), Result()
    with tempfile.TemporaryDirectory(prefix="bench-train-") as scratch:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            benchmark.round(Path(scratch))
            report = benchmark.report()
            if options.json not in (None, "-"):
                Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    status = 1 if benchmark.failed else 0
    if options.json == "-":
        print(json.dumps(report, indent=2))
        return status
    peaks = ", ".join(f"{dtype} {rate / 1e9:,.0f}" for dtype, rate in report["peaks"]["flops_per_s"].items())
    print(f"fastest matrix products, GFLOP/s: {peaks}; load {[round(r['after'], 1) for r in benchmark.load]}")
    Console(width=None if sys.stdout.isatty() else 160).print(draw(report))
    return status


if __name__ == "__main__":
    sys.exit(main())
