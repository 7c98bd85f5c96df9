"""Where things are in a checkpoint and in a run directory, and whether a checkpoint is whole.

runs/<name>/                    a run
├── latest, best                the name of one of the checkpoints, as text
└── checkpoints/step-00001000/  a checkpoint
    ├── config.toml             the resolved config; [model] alone builds the model
    ├── model.safetensors       weights by parameter name
    ├── averaged.safetensors    their moving average, of a run that keeps one: what is scored and sampled
    ├── tokenizer/
    ├── train_state/            tensors.safetensors and values.json: what resume needs
    └── manifest.json           format version and the SHA-256 of every file
"""

from __future__ import annotations

import json
from pathlib import Path

from pellucid.errors import CheckpointError
from pellucid.runtime.files import sha256_file

FORMAT_VERSION = 1
CONFIG, MODEL, TOKENIZER, MANIFEST = "config.toml", "model.safetensors", "tokenizer", "manifest.json"
AVERAGED = "averaged.safetensors"
TRAIN_TENSORS, TRAIN_VALUES = "train_state/tensors.safetensors", "train_state/values.json"
CHECKPOINTS, LATEST, BEST = "checkpoints", "latest", "best"


def step_directory(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The number of updates after which a checkpoint was saved, from its name."""
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; what a killed save left is not among them."""
    found = (p for p in (run / CHECKPOINTS).glob("step-*") if p.is_dir() and p.name[5:].isdigit())
    return sorted(found, key=step_of)


def is_averaged(checkpoint: Path) -> bool:
    """Whether a checkpoint has the moving average of its weights, which is then what is scored and sampled."""
    return (checkpoint / AVERAGED).is_file()


def verify(checkpoint: Path) -> None:
    """Raise CheckpointError that names the first missing, truncated or altered file."""
    for name, expected in _hashes(checkpoint).items():
        file = checkpoint / name
        try:
            found = sha256_file(file)
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{file}: missing from the checkpoint") from None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {str(error.strerror).lower()}") from None
        if found != expected:
            raise CheckpointError(f"{file}: truncated or altered (its SHA-256 is not the manifest's)")


def _hashes(checkpoint: Path) -> dict[str, str]:
    """The SHA-256 of every file by its name, from the manifest."""
    manifest = checkpoint / MANIFEST
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        version, hashes = content["format_version"], dict[str, str](content["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{checkpoint}: not a checkpoint: there is no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest}: truncated or altered: {error!r}") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{checkpoint}: written in checkpoint format {version}; "
            f"this version of Pellucid reads {FORMAT_VERSION}"
        )
    for name in (CONFIG, MODEL):
        if name not in hashes:
            raise CheckpointError(f"{manifest}: truncated or altered: it does not list {name}")
    return hashes


def weights_hash(checkpoint: Path) -> str:
    """The SHA-256 of the weights that `load` takes by default."""
    return _hashes(checkpoint)[AVERAGED if is_averaged(checkpoint) else MODEL]


def newest_valid(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that is whole (None if there is none), and what is wrong with newer ones."""
    faults: list[str] = []
    for checkpoint in reversed(checkpoints(run)):
        try:
            verify(checkpoint)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            return checkpoint, faults
    return None, faults


def newest_run(runs: Path) -> Path:
    """The run directory under `runs` whose checkpoint was saved last."""
    saved = [run for run in runs.glob("*") if run.is_dir() and checkpoints(run)]
    if not saved:
        raise CheckpointError(f"{runs}: no trained run is there yet; train one first: pellucid train quick")
    return max(saved, key=lambda run: checkpoints(run)[-1].stat().st_mtime)


def find_checkpoint(target: Path | None, *, runs: Path = Path("runs")) -> tuple[Path, str]:
    """The checkpoint that a path stands for, verified, and a sentence on why that one.

    A checkpoint stands for itself; a run for its best checkpoint, or its newest whole one where the best is
    damaged or none is marked; nothing for the newest run under `runs`. The sentence also says where its weights
    are averaged ones.
    """
    run = newest_run(runs) if target is None else target
    if not run.exists():
        raise CheckpointError(f"{run}: no such run or checkpoint")
    if (run / MANIFEST).exists() and ((run / CONFIG).exists() or (run / MODEL).exists()):
        verify(run)
        return run, _sentence(run)
    if not (run / CHECKPOINTS).is_dir():
        raise CheckpointError(
            f"{run}: neither a run (no {CHECKPOINTS}/ in it) nor a checkpoint (no {MANIFEST})"
        )
    faults: list[str] = []
    best = run / CHECKPOINTS / _pointer(run / BEST)
    if best.name.startswith("step-"):
        try:
            verify(best)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            return best, _sentence(best, "the run's best by validation loss")
    newest, more = newest_valid(run)
    faults += [fault for fault in more if fault not in faults]
    if newest is None:
        raise CheckpointError("\n".join([f"{run}: no whole checkpoint is there", *faults]))
    return newest, _sentence(newest, "the run's newest whole checkpoint", *faults)


def _sentence(checkpoint: Path, *why: str) -> str:
    notes = [*why, *(["averaged weights"] if is_averaged(checkpoint) else [])]
    return f"{checkpoint} ({'; '.join(notes)})" if notes else str(checkpoint)


def _pointer(file: Path) -> str:
    try:
        return Path(file.read_text(encoding="utf-8").strip()).name
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
