"""One backend in one format, one process that stays alive: an order a line on standard input, an answer a line back.

    python benchmarks/peers/evaluation/worker.py --backend hf --model DIR --dtype bf16 --items FILE

First {"ready": true}; then, for each {"batch_size": n or "auto"}, the log-probability of every ending and

    seconds      from the texts to the answers: `loglikelihood` of the backend, which makes ids of them, too
    cpu_s        processor time of the process
    peak_rss_mib so far

hf: lm_eval's own backend for transformers. pellucid: ours under lm_eval. own: ours without it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

Texts = list[tuple[str, str]]
Scorer = Callable[[Texts, "int | str"], list[float]]
TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16"}


def open_hf(model: Path, dtype: str) -> Scorer:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(model), device="cpu", dtype=TORCH_NAMES[dtype], batch_size=1)

    def score(texts: Texts, batch_size: int | str) -> list[float]:
        lm.batch_size_per_gpu = batch_size  # as its constructor sets it
        lm.batch_schedule = 1
        return [log for log, _ in lm.loglikelihood(instances(texts), disable_tqdm=True)]

    return score


def open_pellucid(model: Path, dtype: str) -> Scorer:
    from pellucid.evaluate.lm_eval import PellucidLM

    lm = PellucidLM(str(model), dtype=dtype, device="cpu")
    return lambda texts, _: [log for log, _ in lm.loglikelihood(instances(texts), disable_tqdm=True)]


def open_own(model: Path, dtype: str) -> Scorer:
    from pellucid import checkpoint
    from pellucid.evaluate.continuations import Request, score_continuations
    from pellucid.runtime.device import choose_device
    from pellucid.runtime.precision import choose_precision

    precision = choose_precision("bf16" if dtype == "bf16" else "fp32", choose_device("cpu"))
    loaded = checkpoint.load(model)

    def score(texts: Texts, _: int | str) -> list[float]:
        requests = [Request(context, ending) for context, ending in texts]
        scored = score_continuations(loaded.model, loaded.tokenizer, requests, precision)
        return [each.log_probability for each in scored]

    return score


BACKENDS = {"hf": open_hf, "pellucid": open_pellucid, "own": open_own}


def instances(texts: Texts) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, each, number) for number, each in enumerate(texts)]


def answer(score: Scorer, texts: Texts, batch_size: int | str) -> dict[str, Any]:
    cpu, began = time.process_time(), time.perf_counter()
    logs = score(texts, batch_size)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,  # Linux counts in KiB
        "logs": logs,
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
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", choices=TORCH_NAMES, required=True)
    parser.add_argument("--items", type=Path, required=True, help="JSON: [[context, ending], …]")
    words = parser.parse_args()
    texts = [(context, ending) for context, ending in json.loads(words.items.read_text(encoding="utf-8"))]
    with answers_alone() as out:
        score = BACKENDS[words.backend](words.model, words.dtype)
        score(texts[:8], 8)
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(score, texts, **json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
