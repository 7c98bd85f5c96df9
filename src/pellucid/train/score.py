"""Scoring a finished checkpoint on its run's own data or on other text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pellucid import checkpoint
from pellucid.config import from_tree
from pellucid.data.manifest import is_prepared
from pellucid.data.mixture import Mixture
from pellucid.data.objectives import Causal, CausalConfig, Objective
from pellucid.data.shards import Split, open_shards
from pellucid.data.sources import open_source
from pellucid.data.sources.base import documents
from pellucid.errors import CheckpointError, ConfigError, DataError
from pellucid.evaluate.documents import Reads, document_ids, evaluate_documents
from pellucid.evaluate.perplexity import Perplexity, evaluate_split
from pellucid.evaluate.record import TextEvaluation
from pellucid.evaluate.splits import evaluate_objective_units, evaluate_split_units
from pellucid.evaluate.token_record import DocumentTokens
from pellucid.evaluate.windows import require_stride
from pellucid.model import EncoderDecoderLM
from pellucid.runtime.precision import Precision
from pellucid.train.config import RunConfig
from pellucid.train.memorised import seen_in_training, split_documents
from pellucid.train.opening import build_objective, open_data
from pellucid.train.rundir import RunDirectory
from pellucid.train.scored_text import TextFormat, open_passages, parts, title

Side = Literal["val", "train"]


@dataclass(frozen=True)
class TextRequest:
    """Which text is scored, and how it is read."""

    data: tuple[str, ...] = ()
    """Paths, or NAME=PATH for parts with names; a prepared directory; nothing: the run's own data."""
    split: Side = "val"
    """Which side of prepared data."""
    reads: Reads = "documents"
    seq_len: int | None = None
    stride: int | None = None
    max_tokens: int | None = None
    form: TextFormat = field(default_factory=TextFormat)

    @property
    def is_split(self) -> bool:
        """Whether it asks for prepared data or the run's own, and not for text."""
        return not self.data or (len(self.data) == 1 and is_prepared(Path(self.data[0])))

    def require_use(self) -> None:
        """Raise ConfigError for a setting that changes nothing of this text."""
        plain = TextFormat()
        settings = {
            "--reads stream": self.is_split and self.reads != "documents",
            "--text-field": self.is_split and self.form.text_field != plain.text_field,
            "--document-marker": self.is_split and self.form.document_marker is not None,
        }
        for name, is_idle in settings.items():
            if is_idle:
                raise ConfigError(
                    f"{name}: is for raw text, and the data was prepared; leave it out, or name a text with --data"
                )
        if self.split != "val" and not self.is_split:
            raise ConfigError(
                f"--split {self.split}: is for prepared data, and {self.data[0]} is raw text, which is scored whole; "
                "leave it out"
            )


def evaluate_loaded(
    loaded: checkpoint.Loaded,
    request: TextRequest,
    precision: Precision,
    *,
    keep: Callable[[DocumentTokens], None] | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TextEvaluation:
    """Score a text with all that intervals need: see `evaluate_documents` and `evaluate_split_units`.

    What is predicted is what the run learned: every id of a text, or its objective's targets. Raises DataError for
    text that cannot be read, and where prepared data was made with another tokenizer than the model's; ConfigError
    for a stride that does not fit, and for settings that the text has no use for; CheckpointError for a window longer
    than the model's context.
    """
    request.require_use()
    if request.seq_len is not None and request.seq_len > loaded.model.max_seq_len:
        raise CheckpointError(
            f"{loaded.path}: --seq-len {request.seq_len} is more than the model's context ({loaded.model.max_seq_len})"
        )
    if request.stride is not None:
        require_stride(request.seq_len or loaded.model.max_seq_len, request.stride)
    objective = _learned(loaded, request.seq_len)
    if objective is not None and not isinstance(objective, Causal):
        _require_plain(loaded, request, keep)
    if request.is_split:
        name, split, domains = _open_split(loaded, request.data[0] if request.data else None, request.split)
    elif objective is None or isinstance(objective, Causal):
        return _evaluate_raw(loaded, request, precision, keep, progress)
    else:
        name, split, domains = title(request.data), _text_split(loaded, request), ()
    if objective is None:
        found = evaluate_split_units(
            loaded.model,
            loaded.tokenizer,
            split,
            precision,
            data=name,
            domains=domains,
            window=request.seq_len,
            stride=request.stride,
            max_tokens=request.max_tokens,
            keep=keep,
            progress=progress,
        )
        scored = found.tokens
    else:
        if isinstance(objective, Causal):
            _require_rows(loaded, request, keep)
        found = evaluate_objective_units(
            loaded.model,
            loaded.tokenizer,
            split,
            precision,
            objective,
            data=name,
            max_tokens=request.max_tokens,
        )
        scored = split.tokens if request.max_tokens is None else len(found.units) * found.window
    return replace(found, seen_in_training=seen_in_training(loaded, split_documents(loaded, split, scored)))


def _evaluate_raw(
    loaded: checkpoint.Loaded,
    request: TextRequest,
    precision: Precision,
    keep: Callable[[DocumentTokens], None] | None,
    progress: Callable[[int], None],
) -> TextEvaluation:
    found = evaluate_documents(
        loaded.model,
        loaded.tokenizer,
        open_passages(request.data, request.form),
        precision,
        data=title(request.data),
        reads=request.reads,
        window=request.seq_len,
        stride=request.stride,
        max_tokens=request.max_tokens,
        keep=keep,
        progress=progress,
    )
    passages = open_passages(request.data, request.form)
    documents = document_ids(loaded.tokenizer, passages, request.max_tokens)
    return replace(found, seen_in_training=seen_in_training(loaded, documents))


def _require_plain(
    loaded: checkpoint.Loaded, request: TextRequest, keep: Callable[[DocumentTokens], None] | None
) -> None:
    if request.stride is not None or keep is not None or request.reads == "stream":
        raise DataError(
            f"{loaded.path}: is scored by what it learned, which is no running text; --stride, --reads, --tokens and "
            "--page want a causal language model"
        )


def _require_rows(
    loaded: checkpoint.Loaded, request: TextRequest, keep: Callable[[DocumentTokens], None] | None
) -> None:
    if request.stride is not None or keep is not None:
        raise DataError(
            f"{loaded.path}: learned packed documents, and its data is scored so; --stride, --tokens and --page want "
            "raw text: name it with --data"
        )


def score_checkpoint(
    path: Path, *, precision: Precision, request: TextRequest | None = None
) -> TextEvaluation:
    """The same of a verified checkpoint; by default on the validation split of its run's own data."""
    loaded = checkpoint.load(path, device=precision.device.torch, is_verified=True)
    return evaluate_loaded(loaded, request or TextRequest(), precision)


def score_loaded(
    loaded: checkpoint.Loaded, *, precision: Precision, max_tokens: int | None = None
) -> tuple[str, Perplexity]:
    """(what was scored, the numbers) of the run's own validation split, without intervals.

    The model may have been packed since it was loaded.
    """
    objective = _learned(loaded, None)
    name, split, _ = _open_split(loaded, None, "val")
    score = evaluate_split(
        loaded.model, loaded.tokenizer, split, precision, objective=objective, max_tokens=max_tokens
    )
    return name, score


def _open_split(loaded: checkpoint.Loaded, data: str | None, side: Side) -> tuple[str, Split, Sequence[str]]:
    """(its name, a side of prepared data or of the run's own, the names of its parts where it is a mixture)."""
    path = loaded.path
    if data is not None:
        shards, name = open_shards(Path(data)), data
    else:
        if "train" not in loaded.config:
            raise CheckpointError(f"{path}: does not say what it was trained on; name a text with --data")
        shards = open_data(from_tree(RunConfig, loaded.config)).shards
        name = shards.name
        trained_on = checkpoint.load_train_values(path).get("data")
        if trained_on not in (None, shards.fingerprint):
            raise DataError(
                f"{name}: is not what this model was trained on (fingerprint {shards.fingerprint[:12]}, the run had "
                f"{trained_on[:12]}); the text has changed since. Name what to score with --data"
                + RunDirectory(loaded.path.parent.parent).changes_of_data(shards.passport)
            )
    found = shards.tokenizer
    if found.fingerprint != loaded.tokenizer.fingerprint:
        raise DataError(
            f"{shards.directory}: was prepared with tokenizer {found.kind} ({found.fingerprint[:12]}), and the model "
            f"reads {loaded.tokenizer.kind} ({loaded.tokenizer.fingerprint[:12]}); score the raw text instead"
        )
    chosen = shards.val if side == "val" else shards.train
    if not chosen.is_complete:
        raise DataError(f"--split train: {name} is a stream, which nobody has all of; score --split val")
    members = list(shards.passport["mixture"]) if isinstance(shards, Mixture) else []
    return f"{side} split of {name}", chosen, members


def _text_split(loaded: checkpoint.Loaded, request: TextRequest) -> Split:
    """One text as a split, for a model that does not simply read on."""
    named = parts(request.data)
    source = open_source(*(part.path for part in named))
    if not source.is_single_text:
        raise DataError(
            f"{named[0].path}: give one .txt file, or prepare it first with the model's tokenizer, "
            f"{loaded.tokenizer.kind}: pellucid prepare {named[0].path} --out DIR --tokenizer …"
        )
    (document,) = documents(source, whole=True)
    ids = loaded.tokenizer.encode(document.text)
    if len(ids) < 2:
        raise DataError(f"{named[0].path}: the text has {len(ids)} token(s); scoring needs at least 2")
    return Split("text", (ids,))


def _learned(loaded: checkpoint.Loaded, seq_len: int | None) -> Objective | None:
    """The run's own objective; None for the causal one, whose windows are the model's context."""
    if "train" not in loaded.config:
        if isinstance(loaded.model, EncoderDecoderLM):
            raise CheckpointError(
                f"{loaded.path}: does not say what its sources and targets were (its config.toml has no [train] "
                "table), so it cannot be scored"
            )
        return None
    config = from_tree(RunConfig, loaded.config)
    learned = config.data.objective
    if isinstance(learned, CausalConfig) and learned.packing == "contiguous":
        return None
    return build_objective(config, loaded.tokenizer, seq_len=seq_len)
