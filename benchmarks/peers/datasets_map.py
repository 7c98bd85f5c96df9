"""The usual way to token shards: `datasets.map` over documents in processes, then a memory-mapped file.

As nanoGPT's data/openwebtext/prepare.py does it: https://github.com/karpathy/nanoGPT
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars, load_dataset
from tiktoken import Encoding

encoding: Encoding | None = None


def process(example: dict[str, str]) -> dict[str, Any]:
    global encoding
    if encoding is None:
        from pellucid.tokenizers import build

        encoding = build("gpt2")._encoding  # GPT-2's ranks without a network; tiktoken's own object
    ids = encoding.encode_ordinary(example["text"])
    ids.append(50256)
    return {"ids": ids, "len": len(ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    words = parser.parse_args()
    disable_progress_bars()
    began = time.perf_counter()
    kind = "parquet" if words.input.suffix == ".parquet" else "json"
    cache = str(words.out / "cache")
    data = load_dataset(kind, data_files=str(words.input), split="train", cache_dir=cache)
    assert isinstance(data, Dataset)
    data = data.map(process, remove_columns=data.column_names, num_proc=words.processes)
    total = int(np.sum(data["len"], dtype=np.uint64))
    ids = np.memmap(words.out / "train.bin", dtype=np.uint16, mode="w+", shape=(total,))
    place, shards = 0, min(1024, len(data))
    for number in range(shards):
        part = data.shard(num_shards=shards, index=number, contiguous=True).with_format("numpy")
        joined = np.concatenate(part["ids"])
        ids[place : place + len(joined)] = joined
        place += len(joined)
    ids.flush()
    print(json.dumps({"seconds": time.perf_counter() - began, "tokens": total}))


if __name__ == "__main__":
    main()
