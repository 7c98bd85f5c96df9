"""The `data` table of a run's config."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pellucid.config import Config
from pellucid.data.mixture import MixtureMember
from pellucid.data.objectives import CausalConfig, ObjectiveConfig, PairedConfig
from pellucid.data.sources.base import Errors, Reading
from pellucid.data.stream import StreamConfig
from pellucid.tokenizers import ByteConfig, TokenizerConfig


class DataConfig(Config):
    """What a run is trained and validated on."""

    path: str = "builtin:shakespeare"
    """Text files (.txt, .md, .jsonl, .json, .csv, .parquet, also compressed), a folder or a glob of them,
    hub:OWNER/NAME[:CONFIG], or builtin:shakespeare: prepared into the cache first. Or a directory made by
    `pellucid prepare`.
    """
    mixture: tuple[MixtureMember, ...] = ()
    """Several paths with weights instead of one path: windows are taken from them in exact proportions."""
    tokenizer: TokenizerConfig = ByteConfig()
    """What turns text into ids. A prepared directory must have been made with the same one."""
    objective: ObjectiveConfig = CausalConfig()
    """What is learned from it: how windows of ids become inputs and targets."""
    text_field: str = "text"
    """The field of a record (.jsonl, .json, .csv, .parquet) that holds the text."""
    document_marker: str | None = None
    """What stands between two documents of a .txt or .md file, such as <|endoftext|>. None: a file is one."""
    errors: Errors = "strict"
    """Bytes that are not UTF-8: strict, an error; replace, U+FFFD; skip: the document is left out, and other faulty
    ones too. What is replaced or left out is counted."""
    deduplicate: bool = False
    """Keep only the first of equal documents."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part held out for validation: the tail of a single text, documents by their content's hash. A stream holds
    out data.stream.val_documents instead."""
    stream: StreamConfig = StreamConfig()
    """Training straight from the source, without preparing all of it first."""
    shuffle_shards: Annotated[int, Field(ge=1)] = 5
    """Windows are shuffled among so many shards at a time."""
    tokens_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """End an epoch after so many tokens; each epoch starts with other shards. All of them by default."""
    cache_dir: str | None = None
    """Where raw text is prepared; by default $PELLUCID_CACHE_DIR, or the user cache directory."""

    @property
    def reading(self) -> Reading:
        """How files become documents; pairs where the objective wants them."""
        return Reading(
            text_field=self.text_field,
            pair_fields=self.objective.fields if isinstance(self.objective, PairedConfig) else None,
            document_marker=self.document_marker,
            errors=self.errors,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mixture and self.path != DataConfig.model_fields["path"].default:
            raise ValueError(
                f"mixture and path: {self.path!r} would not be read; make it a member, or leave it out"
            )
        if self.stream.enabled and self.deduplicate:
            raise ValueError(
                "deduplicate and stream.enabled: to tell whether a document came before, all of them must be prepared; "
                "leave one of the two out"
            )
        name = "data.mixture" if self.mixture else "data.stream.enabled" if self.stream.enabled else None
        if name and isinstance(self.objective, PairedConfig):
            raise ValueError(
                f"{name}: pairs are prepared whole, from one source; leave it out, or choose another objective"
            )
        if self.mixture and self.stream.enabled:
            raise ValueError(
                "mixture and stream.enabled: only prepared data can be mixed; leave one of them out"
            )
        if self.stream.enabled and getattr(self.objective, "packing", "contiguous") != "contiguous":
            raise ValueError(
                "stream.enabled: objective.packing 'best_fit' needs to know all documents before it begins; "
                "choose 'contiguous', or prepare the data first"
            )
        return self
