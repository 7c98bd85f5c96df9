"""A checkpoint measured, and the record of it kept beside its run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pellucid import checkpoint
from pellucid.checkpoint import Loaded
from pellucid.errors import DataError, StorageError
from pellucid.evaluate.record import Evaluation, TaskEvaluation, TextEvaluation
from pellucid.evaluate.token_record import DocumentTokens
from pellucid.runtime.precision import Precision
from pellucid.train.run_files import CONFIG, EVALUATIONS
from pellucid.train.score import TextRequest, evaluate_loaded
from pellucid.train.scored_text import TextFormat

_MOST_CHARACTERS = 120
"""Of a record's name; most disks take 255 bytes."""


def describe(
    loaded: Loaded,
    precision: Precision,
    *,
    texts: tuple[TextEvaluation, ...] = (),
    tasks: tuple[TaskEvaluation, ...] = (),
    model: str | None = None,
) -> Evaluation:
    """What was measured, with whose it is. model: the checkpoint as the user named it; its path by default."""
    return Evaluation(
        model=model or str(loaded.path),
        weights_sha256=checkpoint.weights_hash(loaded.path),
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        precision=precision.name,
        trained_on=str(checkpoint.load_train_values(loaded.path).get("data") or ""),
        texts=texts,
        tasks=tasks,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def evaluate_checkpoint(
    path: Path, precision: Precision, request: TextRequest | None = None, *, model: str | None = None
) -> Evaluation:
    """Score a verified checkpoint on a text; by default on the whole validation split of its run's own data."""
    loaded = checkpoint.load(path, device=precision.device.torch, is_verified=True)
    text = evaluate_loaded(loaded, request or TextRequest(), precision)
    return describe(loaded, precision, texts=(text,), model=model)


# Token by token -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenText:
    """A text as one model, or two, predict it token by token."""

    evaluation: TextEvaluation
    documents: tuple[DocumentTokens, ...]
    against: TextEvaluation | None = None


def evaluate_tokens(
    loaded: Loaded,
    request: TextRequest,
    precision: Precision,
    *,
    against: Loaded | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TokenText:
    """The losses of all tokens of a text; against: another model with the same tokenizer, side by side.

    Raises DataError as `evaluate_loaded`, and for models with different tokenizers.
    """
    if against is not None and against.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        raise DataError(
            f"--against {against.path}: reads {against.tokenizer.kind} ({against.tokenizer.fingerprint[:12]}), and "
            f"{loaded.path} reads {loaded.tokenizer.kind} ({loaded.tokenizer.fingerprint[:12]}); token by token only "
            "models with one tokenizer compare: see pellucid compare for bits per byte"
        )
    if against is not None and request.seq_len is None:  # the same windows for both
        shorter = min(loaded.model.max_seq_len, against.model.max_seq_len)
        request = replace(request, seq_len=shorter)
    ours: list[DocumentTokens] = []
    evaluation = evaluate_loaded(loaded, request, precision, keep=ours.append, progress=progress)
    if against is None:
        return TokenText(evaluation, tuple(ours))
    theirs: list[DocumentTokens] = []
    other = evaluate_loaded(against, request, precision, keep=theirs.append, progress=progress)
    return TokenText(evaluation, tuple(a.beside(b) for a, b in zip(ours, theirs, strict=True)), other)


# Keeping it -----------------------------------------------------------------------------------------


def record_name(request: TextRequest) -> str:
    """The name of a text's record: `val` for the run's own validation split, else the text's and its settings."""
    words = list(request.data) or [request.split]
    if request.data and request.is_split:
        words.append(request.split)
    words += ["stream"] if request.reads == "stream" else []
    words += [f"w{request.seq_len}"] if request.seq_len else []
    words += [f"s{request.stride}"] if request.stride else []
    words += [f"first-{request.max_tokens}"] if request.max_tokens else []
    if request.form != TextFormat():
        words += [request.form.text_field, request.form.document_marker or ""]
    return _file_name(words)


def task_record_name(tasks: Sequence[str], limit: int | None) -> str:
    """The same of an evaluation on tasks."""
    return _file_name([*tasks, *([f"first-{limit}"] if limit else [])])


def _file_name(words: Sequence[str]) -> str:
    """The words, and where they cannot all be told from the name, some digits of their hash."""
    plain = [re.sub(r"[^\w.-]+", "-", word).strip("-.") for word in words]
    name = "-".join(word for word in plain if word)
    if plain == list(words) and len(name) <= _MOST_CHARACTERS:
        return name
    digits = hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:8]
    return f"{name[:_MOST_CHARACTERS]}-{digits}"


def run_of(path: Path) -> Path | None:
    """The run directory in which a checkpoint lies; None for one that stands alone."""
    run = path.absolute().parent.parent
    return (
        path.parent.parent
        if (run / CONFIG).is_file() and path.absolute().parent.name == "checkpoints"
        else None
    )


def keep_record(
    evaluation: Evaluation, path: Path, name: str, out: Path | None = None, *, is_named: bool = False
) -> str:
    """Write the record to `out`, else into the run directory of the checkpoint. Returns a sentence on where it is.

    is_named: whether the user named this checkpoint, and not its run: then its name is in the record's.
    Raises StorageError where `out` cannot be written; a run directory that cannot be is only said.
    """
    if out is not None:
        evaluation.write(out)
        return f"kept in {out}"
    run = run_of(path)
    if run is None:
        return "not kept: the checkpoint lies in no run directory; name a file with --out"
    if is_named:
        name = f"{name}-{path.absolute().name}"
    file = run / EVALUATIONS / f"{name}.json"
    try:
        evaluation.write(file)
    except StorageError as error:
        return f"not kept: {error}; name a file with --out"
    return f"kept in {file}"
