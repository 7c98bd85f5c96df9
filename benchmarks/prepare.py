"""How fast does text become token shards on disk, beside a bare tiktoken and the usual `datasets.map`?

Each row is measured in fresh processes, interleaved over the repeats; GPT-2's vocabulary everywhere:

    pellucid           `prepare`: source → shards and manifest, hashed and on the disk; everything it starts included
    pellucid, own      the same with tiktoken in place of the faster encoder
    tiktoken           `encode_ordinary_batch` over texts that are in memory already, into lists that are dropped
    datasets.map       nanoGPT's recipe: `map` in processes, then a memory-mapped file (peers/datasets_map.py)

seconds: of that work, without the process's imports. Peak memory: the resident memory of the process and all that
it started, looked at every 10 ms; the texts that the bare tiktoken reads from count too.

    python benchmarks/prepare.py --input stories.jsonl --json result.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

PEER = Path(__file__).parent / "peers" / "datasets_map.py"


# One measurement, in a process of its own -------------------------------------------------------------


def prepare_here(source: str, out: Path, workers: int, *, accelerated: bool) -> dict[str, Any]:
    from pellucid import tokenizers
    from pellucid.data import prepare as module
    from pellucid.data.sources import open_source
    from pellucid.tokenizers.accelerate import Encoder

    if not accelerated:
        module.fastest_encoder = lambda tokenizer, sample=(): Encoder("tiktoken", tokenizer.encode_batch, "")
        module.start_early = lambda tokenizer: None
    tokenizer = tokenizers.build("gpt2")
    began = time.perf_counter()
    manifest = module.prepare(open_source(source), tokenizer, out, workers=workers)
    seconds = time.perf_counter() - began
    sides = (manifest.train, manifest.val)
    return {
        "seconds": seconds,
        "documents": sum(side.documents for side in sides),
        "bytes": sum(side.bytes for side in sides),
        "tokens": sum(side.tokens for side in sides),
    }


def tiktoken_here(source: str, threads: int) -> dict[str, Any]:
    from pellucid import tokenizers
    from pellucid.data.sources import open_source, texts

    everything = list(texts(open_source(source)))
    encoding = tokenizers.build("gpt2")._encoding  # tiktoken's own object, with GPT-2's ranks
    began = time.perf_counter()
    ids = encoding.encode_ordinary_batch(everything, num_threads=threads)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "documents": len(everything),
        "bytes": sum(len(text.encode()) for text in everything),
        "tokens": sum(map(len, ids)),
    }


def datasets_here(source: str, out: Path, processes: int) -> dict[str, Any]:
    out.mkdir()
    command = [sys.executable, str(PEER), source, str(out), "--processes", str(processes)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(name: str, source: str, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        if name == "tiktoken":
            return tiktoken_here(source, workers)
        if name == "datasets.map":
            return datasets_here(source, out, workers)
        return prepare_here(source, out, workers, accelerated=name == "pellucid")


# All of them ------------------------------------------------------------------------------------------


def resident_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        pass  # it has just ended
    return total


def measure(name: str, source: str, workers: int) -> dict[str, Any]:
    """Run one measurement in a fresh process, and watch its memory."""
    command = [sys.executable, __file__, "--input", source, "--here", name, "--workers", str(workers)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    watched, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, resident_bytes(watched))
        time.sleep(0.01)
    assert child.stdout is not None
    if child.returncode:
        sys.exit(f"{name} failed")
    return json.loads(child.stdout.read()) | {"peak_mib": peak / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", default="builtin:shakespeare", help="anything that `pellucid prepare` reads"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="measure only these rows")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here, options.input, options.workers[0])))
        return
    names = ["tiktoken", "pellucid", "pellucid, own", "datasets.map"]
    if importlib.util.find_spec("datasets") is None or options.input.startswith("builtin:"):
        names.remove("datasets.map")  # pip install datasets
    cases = [(name, workers) for name in options.only or names for workers in options.workers]
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(options.repeats):  # interleaved, so that a busy moment falls on all alike
        for case in cases:
            runs[case].append(measure(case[0], options.input, case[1]))
            print(*case, f"{runs[case][-1]['seconds']:.2f} s", file=sys.stderr)
    full = next(run for case in cases for run in runs[case] if "bytes" in run)
    rows = []
    for (name, workers), found in runs.items():
        seconds = [run["seconds"] for run in found]
        median = statistics.median(seconds)
        rows.append(
            {
                "name": name,
                "workers": workers,
                "seconds": median,
                "min_s": min(seconds),
                "max_s": max(seconds),
                "documents_per_s": full["documents"] / median,
                "mb_per_s": full["bytes"] / 1e6 / median,
                "peak_mib": max(run["peak_mib"] for run in found),
            }
        )
    base = {row["workers"]: row["seconds"] for row in rows if row["name"] == "tiktoken"}
    table = Table("", "workers", "seconds", "min … max", "documents/s", "MB/s", "× tiktoken", "peak MiB")
    for row in rows:
        row["ratio"] = base[row["workers"]] / row["seconds"] if row["workers"] in base else None
        table.add_row(
            row["name"],
            str(row["workers"]),
            f"{row['seconds']:.2f}",
            f"{row['min_s']:.2f} … {row['max_s']:.2f}",
            f"{row['documents_per_s']:,.0f}",
            f"{row['mb_per_s']:.1f}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            f"{row['peak_mib']:,.0f}",
        )
    print(f"{full['documents']:,} documents, {full['bytes'] / 1e6:,.1f} MB, {full['tokens']:,} tokens")
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
