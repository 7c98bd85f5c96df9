"""The `data` table of a run's config."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pellucid.config import Config
from pellucid.data.objectives import CausalConfig, ObjectiveConfig, PairedConfig
from pellucid.data.sources import PairFields
from pellucid.tokenizers import ByteConfig, TokenizerConfig


class DataConfig(Config):
    """What a run is trained and validated on."""

    path: str = "builtin:shakespeare"
    """Raw text (a .txt or .jsonl file, a folder of them, or builtin:shakespeare), prepared into the cache
    first; or a directory made by `pellucid prepare`.
    """
    tokenizer: TokenizerConfig = ByteConfig()
    """What turns text into ids. A prepared directory must have been made with the same one."""
    objective: ObjectiveConfig = CausalConfig()
    """What is learned from it: how windows of ids become inputs and targets."""
    text_field: str = "text"
    """The field that holds the text of a .jsonl line."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part held out for validation: the tail of a single text, documents by their content's hash."""
    shuffle_shards: Annotated[int, Field(ge=1)] = 5
    """Windows are shuffled among so many shards at a time."""
    tokens_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """End an epoch after so many tokens; each epoch starts with other shards. All of them by default."""
    cache_dir: str | None = None
    """Where raw text is prepared; by default $PELLUCID_CACHE_DIR, or the user cache directory."""

    @property
    def pair_fields(self) -> PairFields | None:
        """The fields of a pair where the objective wants pairs."""
        return self.objective.fields if isinstance(self.objective, PairedConfig) else None
