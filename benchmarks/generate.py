"""How fast is text written, beside the libraries that people write it with, from the same weights?

Every row is a process of its own that stays alive; in each round every row writes once, one after the other. The model
is a Llama of random weights (generation/model.py); the prompts are random ids, the same for all rows; every next id is
the most probable one, and nothing ends a text. Rows and their settings: generation/rows.py; how each library is driven:
peers/generation/. What is not installed, and what fails, is listed with the reason.

    first, s     from the prompt to the first new id: the reading of the prompt
    decode       tokens/s of all rows of a batch after that: (new ids - 1) · batch / time
    whole        tokens/s from the prompt to the last id: new ids · batch / time
    x NAME       to that row's, decode / whole: median over rounds of the ratio within a round. NAME is transformers in
                 bf16 (of the same batch; for fp32 in fp32), and llama.cpp with as many bits a weight
    MB           of weights that one step reads, in the format in which they lie in memory; the cache is not counted
    GB/s         MB · steps/s while decoding, and its share of the read bandwidth, which is measured in every round as
                 generation/bandwidth.py says (the best of all rounds and ways)
    shortfall    how far the written ids are from what fp32 would choose after the same ids, in standard deviations of
                 its logits, and how many in front are fp32's own; "!" where it is more than rounding explains
    peak         resident memory of the process, loading included

Our rows wait at barriers as our command does (GOMP_SPINCOUNT), the others as libgomp has it, which is what their users
have: faster on an idle machine, many times slower beside a busy neighbour. --settings adds theirs with our waiting
("brief waits"), and llama.cpp with its other choices. Where GOMP_SPINCOUNT is set, it holds for all.

The exit status is 1 if something that is installed could not be measured or wrote what its weights do not say.

    python benchmarks/generate.py --json benchmarks/results/generate-124m.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from generation.rows import LIMITS, ROWS, SETTINGS, SIZES, Row
from generation.running import Process, ProcessError, run
from machine import describe_machine, is_installed

HERE = Path(__file__).parent
REQUIREMENTS = "benchmarks/requirements.txt"
LIBRARIES = (
    "pellucid",
    "torch",
    "transformers",
    "litgpt",
    "llama-cpp-python",
    "ctranslate2",
    "onnxruntime",
    "onnxruntime-genai",
    "gguf",
    "numpy",
)
WARMUP_TOKENS = 8

Result = dict[str, Any]


class Benchmark:
    """Rounds of turns, and what has been found so far."""

    def __init__(self, rows: list[Row], options: argparse.Namespace, files: Path) -> None:
        self.options, self.files, self.size = options, files, SIZES[options.size]
        self.environment = {
            "OMP_NUM_THREADS": str(options.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PELLUCID_CACHE_DIR": str(files / "cache"),
        }
        self.rows = [row for row in rows if is_installed(row.package)]
        self.absent = {row.name: f"not installed: see {REQUIREMENTS}" for row in rows if row not in self.rows}
        self.failed: dict[str, str] = {}
        self.processes: dict[str, Process] = {}
        self.turns: dict[str, list[Result]] = {row.name: [] for row in self.rows}
        self.bandwidths: list[dict[str, float]] = []
        self.load: list[dict[str, float]] = []
        draw = random.Random(0)
        most = max((row.batch for row in rows), default=1)
        self.prompts = [
            [draw.randrange(self.size.vocab_size) for _ in range(options.prompt_tokens)] for _ in range(most)
        ]

    def open(self) -> None:
        """Write the model, and load it in every row's process."""
        if not (self.files / "hf").exists():
            self._script(
                "model.py", "write", "--shape", json.dumps(self.size.shape), "--files", str(self.files)
            )
        for row in list(self.rows):
            print(f"  opening {row.name}", file=sys.stderr)
            self._try(row, self._open)

    def _open(self, row: Row) -> None:
        length = self.options.prompt_tokens + self.options.new_tokens
        process = Process(
            row, self.files, self.options.threads, length, self._surroundings(), self.options.limit
        )
        self.processes[row.name] = process
        process.write(self.prompts[: row.batch], min(WARMUP_TOKENS, self.options.new_tokens))

    def round(self) -> None:
        before = os.getloadavg()[0]
        words = ["--mib", str(self.size.bandwidth_mib), "--threads", str(self.options.threads)]
        self.bandwidths.append(json.loads(self._script("bandwidth.py", *words)))
        for row in list(self.rows):
            self._try(row, self._turn)
        self.load.append({"before": before, "after": os.getloadavg()[0]})
        self._judge()

    def _turn(self, row: Row) -> None:
        answer = self.processes[row.name].write(self.prompts[: row.batch], self.options.new_tokens)
        new = self.options.new_tokens * row.batch
        answer["decode_tokens_per_s"] = (new - row.batch) / answer["decode_s"]
        answer["tokens_per_s"] = new / (answer["first_s"] + answer["decode_s"])
        self.turns[row.name].append(answer)
        print(f"  {row.name}: {answer['decode_tokens_per_s']:,.1f} tokens/s", file=sys.stderr)

    def _try(self, row: Row, do: Callable[[Row], None]) -> None:
        """A row that fails is one no more."""
        try:
            do(row)
        except ProcessError as fault:
            print(f"  {row.name}: {fault}", file=sys.stderr)
            self.failed[row.name] = str(fault)
            self.rows.remove(row)
            self.turns.pop(row.name)
            if process := self.processes.pop(row.name, None):
                process.close()

    def _judge(self) -> None:
        """Let fp32 judge what each row wrote in this round; what it wrote before has been judged."""
        unjudged: dict[str, Result] = {}
        for row in self.rows:
            *earlier, now = self.turns[row.name]
            same = next((turn for turn in earlier if turn["written"] == now["written"]), None)
            if same is None:
                unjudged[row.name] = now
            else:
                now["verdict"] = same["verdict"]
        batches = {row.name: row.batch for row in self.rows}
        given = [
            {"prompts": self.prompts[: batches[name]], "written": turn["written"]}
            for name, turn in unjudged.items()
        ]
        said = self._script("model.py", "judge", "--files", str(self.files), given=json.dumps(given))
        for turn, verdict in zip(unjudged.values(), json.loads(said), strict=True):
            turn["verdict"] = verdict

    def _script(self, name: str, *words: str, given: str = "") -> str:
        try:
            return run([sys.executable, str(HERE / "generation" / name), *words], self._surroundings(), given)
        except ProcessError as fault:
            sys.exit(f"{name}: {fault}")

    def _surroundings(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    def report(self) -> Result:
        bandwidth = {way: max(found[way] for found in self.bandwidths) for way in self.bandwidths[0]}
        fastest = max(bandwidth.values())
        return {
            "machine": describe_machine(self.options.threads, LIBRARIES) | {"load_by_round": self.load},
            "settings": {
                "size": self.options.size,
                **self.size.shape,
                "prompt_tokens": self.options.prompt_tokens,
                "new_tokens": self.options.new_tokens,
                "rounds": len(self.bandwidths),
                "environment": {
                    name: value for name, value in self.environment.items() if os.sep not in value
                },
                "command": shown_command(sys.argv[1:]),
            },
            "read_bandwidth": {"bytes_per_s": fastest, "by_way": bandwidth},
            "rows": [
                summarise(row, self.turns, self.processes[row.name].weight_bytes, fastest)
                for row in self.rows
            ],
            "not_measured": self.absent | self.failed,
        }


def shown_command(words: list[str]) -> str:
    """What was typed, with files by their names alone: a folder is nobody's business."""
    typed = [Path(word).name if os.sep in word else word for word in words]
    return shlex.join(["python", "benchmarks/generate.py", *typed])


def summarise(row: Row, turns: dict[str, list[Result]], weight_bytes: int, bandwidth: float) -> Result:
    """One row over all rounds."""
    mine = turns[row.name]
    decoding = spread([turn["decode_tokens_per_s"] for turn in mine])
    bytes_per_s = weight_bytes * decoding["median"] / row.batch
    worst = max((turn["verdict"] for turn in mine), key=lambda verdict: verdict["shortfall"])
    return {
        "name": row.name,
        "batch": row.batch,
        "setting": {**row.setting, "waits_briefly": row.waits_briefly},
        "first_s": spread([turn["first_s"] for turn in mine]),
        "decode_tokens_per_s": decoding,
        "tokens_per_s": spread([turn["tokens_per_s"] for turn in mine]),
        "ratios": {name: ratios(mine, turns[name]) for name in row.beside if name in turns},
        "weight_bytes": weight_bytes,
        "weight_bytes_per_s": bytes_per_s,
        "bandwidth_share": bytes_per_s / bandwidth,
        "peak_rss_mib": max(turn["peak_rss_mib"] for turn in mine),
        "cpu_share": statistics.median(turn["cpu_share"] for turn in mine),
        **worst,
        "shortfall_limit": LIMITS[row.weights],
        "is_right": worst["shortfall"] <= LIMITS[row.weights],
    }


def ratios(mine: list[Result], others: list[Result]) -> dict[str, dict[str, float]]:
    pairs = list(zip(mine, others, strict=True))
    return {
        key: spread([turn[key] / other[key] for turn, other in pairs])
        for key in ("decode_tokens_per_s", "tokens_per_s")
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def draw(report: Result) -> Table:
    table = Table("", "first, s", "decode, tokens/s", "whole", "x transformers", "x llama.cpp")
    for name in ("MB", "GB/s", "shortfall", "peak MiB"):
        table.add_column(name)
    for row in report["rows"]:
        decoding, fall = row["decode_tokens_per_s"], f"{row['shortfall']:.4f}, {row['same_in_front']} same"
        table.add_row(
            row["name"],
            f"{row['first_s']['median']:.3f}",
            f"{decoding['median']:,.1f} [{decoding['min']:,.1f} … {decoding['max']:,.1f}]",
            f"{row['tokens_per_s']['median']:,.1f}",
            shown_ratio(row, "transformers"),
            shown_ratio(row, "llama.cpp"),
            f"{row['weight_bytes'] / 1e6:,.0f}",
            f"{row['weight_bytes_per_s'] / 1e9:.1f} ({row['bandwidth_share']:.0%})",
            fall if row["is_right"] else f"{fall} !",
            f"{row['peak_rss_mib']:,.0f}",
        )
    return table


def shown_ratio(row: Result, library: str) -> str:
    found = next((of for name, of in row["ratios"].items() if name.startswith(library)), None)
    if found is None:
        return ""
    return f"{found['decode_tokens_per_s']['median']:.2f} / {found['tokens_per_s']['median']:.2f}"


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """The rows of these names, in their own order. Ends the program for a name that no row has."""
    if not options.only:
        return [*ROWS, *(SETTINGS if options.settings else [])]
    known = {row.name: row for row in (*ROWS, *SETTINGS)}
    if unknown := [name for name in options.only if name not in known]:
        sys.exit(f"--only {unknown[0]!r}: there is no such row; choose from: {'; '.join(known)}")
    return [row for name, row in known.items() if name in options.only]


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="124m")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows of exactly these names")
    parser.add_argument("--settings", action="store_true", help="also llama.cpp with other settings")
    parser.add_argument(
        "--files", type=Path, help="keep the model's formats there (default: made and removed)"
    )
    parser.add_argument("--limit", type=float, default=900, metavar="S", help="seconds that a turn may take")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="every number, after each round; alone: printed"
    )
    options = parser.parse_args(words)
    room = SIZES[options.size].max_seq_len
    if options.new_tokens < 2 or not 1 <= options.prompt_tokens <= room - options.new_tokens:
        parser.error(f"prompt and new tokens must fit {room} together, and the new ones be two at least")
    return options


def main() -> int:
    options = options_of()
    with tempfile.TemporaryDirectory(prefix="bench-generate-") as scratch:
        benchmark = Benchmark(chosen_rows(options), options, (options.files or Path(scratch)) / options.size)
        benchmark.files.mkdir(parents=True, exist_ok=True)
        try:
            report = measure(benchmark)
        finally:
            benchmark.close()
    status = 1 if benchmark.failed or not all(row["is_right"] for row in report["rows"]) else 0
    if options.json == "-":
        print(json.dumps(report, indent=2))
        return status
    by_way = ", ".join(f"{way} {rate / 1e9:.1f}" for way, rate in report["read_bandwidth"]["by_way"].items())
    print(f"read bandwidth, GB/s: {by_way}; load {[round(r['after'], 1) for r in benchmark.load]}")
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(draw(report))
    for name, reason in report["not_measured"].items():
        console.print(f"{name}: not measured: {reason}", markup=False, highlight=False)
    return status


def measure(benchmark: Benchmark) -> Result:
    """The report of all rounds, which is also written after each where a file is wanted."""
    benchmark.open()
    report: Result = {}
    for number in range(benchmark.options.rounds):
        print(f"round {number + 1} of {benchmark.options.rounds}", file=sys.stderr)
        benchmark.round()
        report = benchmark.report()
        if benchmark.options.json not in (None, "-"):
            text = json.dumps(report, indent=2) + "\n"
            Path(benchmark.options.json).write_text(text, encoding="utf-8")
    return report


if __name__ == "__main__":
    sys.exit(main())
