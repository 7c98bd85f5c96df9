"""An encoder-decoder learns real tasks through the one trainer: reversal from pairs, and the built-in corpus."""

from __future__ import annotations

import json
import math
import os
import random
import string
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from pellucid import checkpoint
from pellucid.data.sources import texts
from pellucid.data.sources.builtin import BuiltinSource
from pellucid.train.run_files import read_facts

pytestmark = pytest.mark.slow
THREADS = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def words(count: int, seed: int) -> list[str]:
    """Different strings of 4 to 16 letters."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(draw.choices(string.ascii_lowercase, k=draw.randint(4, 16)))] = None
    return list(found)


def train(directory: Path, *arguments: str) -> float:
    """`pellucid train … run.dir=run` in the directory; returns its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pellucid", "train", *arguments, "run.dir=run"]
    done = subprocess.run(
        command, cwd=directory, env=THREADS, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def test_reversal_is_solved_on_strings_never_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(THREADS, "PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    known = words(20_500, seed=0)
    held_out, known = known[:500], known[500:]
    lines = (json.dumps({"source": word, "target": word[::-1]}) for word in known)
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    seconds = train(tmp_path, "pairs-quick", "data.path=pairs.jsonl")

    loaded = checkpoint.load(checkpoint.find_checkpoint(tmp_path / "run")[0])
    sources = [torch.from_numpy(loaded.tokenizer.encode(word).astype("int64")) for word in held_out]
    end = loaded.tokenizer.end_of_text_id
    answers = loaded.model.generate(sources, 18, stop_id=end)
    written = [loaded.tokenizer.decode(answer[answer != end].numpy()) for answer in answers]
    exact = sum(text == word[::-1] for text, word in zip(written, held_out, strict=True)) / len(held_out)
    with capsys.disabled():
        print(f"\nreversal: {exact:.1%} of {len(held_out)} exact after {seconds:.0f} s of training")
    assert exact >= 0.99


@pytest.mark.parametrize(("objective", "steps"), [("span_corruption", 300), ("prefix", 150)])
def test_the_built_in_corpus_is_learned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    objective: str,
    steps: int,
) -> None:
    """After a few hundred updates targets are predicted better than by how often each byte comes."""
    monkeypatch.setitem(THREADS, "PELLUCID_CACHE_DIR", str(tmp_path / "cache"))
    seconds = train(
        tmp_path,
        "encdec-quick",
        f"data.objective.kind={objective}",
        f"train.steps={steps}",
        "train.max_seconds=",
    )
    scores = [
        fact for fact in read_facts(tmp_path / "run" / "metrics.jsonl") if fact["event"] == "evaluation"
    ]
    with capsys.disabled():
        print(f"\n{objective}: {scores[-1]['bits_per_byte']:.3f} bits/byte after {seconds:.0f} s")
    text = "".join(texts(BuiltinSource("shakespeare"))).encode()
    shares = [count / len(text) for count in Counter(text).values()]
    assert scores[-1]["bits_per_byte"] < -sum(share * math.log2(share) for share in shares) - 0.25
