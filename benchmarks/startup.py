"""How long does `--help` take? Medians over fresh processes; the promise is under 0.3 s, without torch.

python benchmarks/startup.py --json result.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (["--help"], ["train", "--help"], ["generate", "--help"])


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = {"(bare Python)": ["-c", "pass"]}
    cases |= {"pellucid " + " ".join(words): ["-m", "pellucid", *words] for words in COMMANDS}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.repeats):  # interleaved, so that a busy moment falls on all alike
        for name, arguments in cases.items():
            taken[name].append(seconds(arguments))
    rows = [
        {"name": name, "median_s": statistics.median(times), "min_s": min(times), "max_s": max(times)}
        for name, times in taken.items()
    ]
    for row in rows:
        print(f"{row['name']:<26} median {row['median_s']:.3f} s   [{row['min_s']:.3f} … {row['max_s']:.3f}]")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
