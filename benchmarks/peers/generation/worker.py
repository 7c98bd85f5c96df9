"""One library, one setting, one process that stays alive: an order a line on standard input, an answer a line back.

    python benchmarks/peers/generation/worker.py --engine litgpt_generate --files DIR --setting '{"dtype": "bf16"}'

First {"weight_bytes": …}; then, for each {"prompts": [[id, …], …], "count": n}, the ids that were written and

    first_s    from the order to the first new id of every row
    decode_s   from there to the last
    cpu_share  CPU time of the process by wall time of the whole

--convert instead writes the files that this setting reads, and ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from engine import Engine


def answer(engine: Engine, prompts: list[list[int]], count: int) -> dict[str, Any]:
    marks: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    written = engine.write(prompts, count, lambda: marks.append(time.perf_counter()))
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - began)
    if len(marks) != count or [len(row) for row in written] != [count] * len(prompts):
        sys.exit(f"{count} tokens were wanted in {len(prompts)} rows, and {len(marks)} steps came")
    return {
        "first_s": marks[0] - began,
        "decode_s": marks[-1] - marks[0],
        "cpu_share": cpu_share,
        "written": written,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,  # Linux counts in KiB
    }


@contextmanager
def answers_alone() -> Iterator[TextIO]:
    """Standard output for answers; what a library prints there goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", required=True, help="a module beside this file")
    parser.add_argument("--files", type=Path, required=True, help="where the model lies in several formats")
    parser.add_argument("--setting", type=json.loads, default={})
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--length", type=int, default=1024, help="the most tokens of a row, its prompt's included"
    )
    parser.add_argument("--convert", action="store_true", help="only write the files that the engine reads")
    words = parser.parse_args()
    module = importlib.import_module(words.engine)
    with answers_alone() as out:
        if words.convert:
            if convert := getattr(module, "convert", None):
                convert(words.files, **words.setting)
            return
        engine: Engine = module.open_engine(words.files, words.threads, words.length, **words.setting)
        print(json.dumps({"weight_bytes": engine.weight_bytes}), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(engine, **json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
