"""Write the golden files anew: python tests/golden/record.py losses | checkpoint

`losses` after a change that is meant to change numbers; say so in the commit, with the old and the new curve.
`checkpoint` only for a new format version, into a directory of its own: the old ones must still load.
"""

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.cli.options import run_config
from pellucid.train import train
from pellucid.train.run_files import read_facts

HERE = Path(__file__).parent
CURVE = HERE / "debug_losses.json"
CURVE_WORDS = ("debug", "train.precision=fp32", "train.compile=false", "train.steps=20", "train.eval_every=10",
               "train.checkpoint_every=10", "train.sample_tokens=0")  # fmt: skip

CHECKPOINT = HERE / f"format-{checkpoint.layout.FORMAT_VERSION}"
CHECKPOINT_WORDS = ("debug", "model.d_model=8", "model.num_layers=2", "model.num_kv_heads=1", "model.max_seq_len=16",
                    "train.precision=fp32", "train.compile=false", "train.steps=60", "train.batch_tokens=128",
                    "train.lr=2e-2", "train.eval_every=60", "train.eval_tokens=256",
                    "train.sample_tokens=0")  # fmt: skip
PROMPT = "To be, or not to"


def record_losses() -> None:
    with tempfile.TemporaryDirectory() as work:
        run = train(
            run_config([*CURVE_WORDS, f"run.dir={work}/run"]), console=Console(file=io.StringIO())
        ).directory
        facts = list(read_facts(run / "metrics.jsonl"))
    curve = {
        "loss": [fact["loss"] for fact in facts if fact["event"] == "step"],
        "val_loss": [fact["val_loss"] for fact in facts if fact["event"] == "evaluation"],
    }
    CURVE.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


def record_checkpoint() -> None:
    if CHECKPOINT.exists():
        sys.exit(f"{CHECKPOINT}: is there already; a checkpoint of a format is written once")
    with tempfile.TemporaryDirectory() as work:
        run = train(
            run_config([*CHECKPOINT_WORDS, f"run.dir={work}/run"]), console=Console(file=io.StringIO())
        )
        shutil.copytree(checkpoint.find_checkpoint(run.directory)[0], CHECKPOINT / "checkpoint")
    loaded = checkpoint.load(CHECKPOINT / "checkpoint")
    with torch.inference_mode():
        logits = loaded.model(torch.from_numpy(loaded.tokenizer.encode(PROMPT).astype("int64"))[None])[0, -1]
    (CHECKPOINT / "logits.json").write_text(json.dumps(logits.tolist()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    {"losses": record_losses, "checkpoint": record_checkpoint}[sys.argv[1]]()
