"""What a model learns from windows of ids: how they become inputs and targets.

    causal            every id from those before it                                              decoder
    prefix            how a text goes on, its beginning seen in both directions                  both
    span_corruption   what was cut out of a text (T5)                                            encoder-decoder
    paired            a target text from a source text                                           encoder-decoder

`ObjectiveConfig` is the union of all kinds, and the only list of them: a new kind is its file and one word
there. Every batch of an objective has one shape, which follows from the window length.
"""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field

from pellucid.config import members
from pellucid.data.objectives.base import Objective, ObjectiveBase
from pellucid.data.objectives.causal import Causal, CausalConfig
from pellucid.data.objectives.paired import Paired, PairedConfig
from pellucid.data.objectives.prefix import PrefixConfig, PrefixLM, PrefixToContinuation
from pellucid.data.objectives.span_corruption import SpanCorruption, SpanCorruptionConfig, sentinel_names

__all__ = [
    "Causal",
    "CausalConfig",
    "Objective",
    "ObjectiveConfig",
    "Paired",
    "PairedConfig",
    "PrefixConfig",
    "PrefixLM",
    "PrefixToContinuation",
    "SpanCorruption",
    "SpanCorruptionConfig",
    "require_fit",
    "sentinel_names",
]

ObjectiveConfig = Annotated[
    CausalConfig | PrefixConfig | SpanCorruptionConfig | PairedConfig, Field(discriminator="kind")
]
"""Any objective's config, told apart by `kind`."""


def require_fit(objective: ObjectiveConfig, model_kind: str) -> None:
    """Raise ValueError, with the objectives that would do, when a model of this kind cannot learn this one."""
    if fault := objective.misfit(model_kind):
        others = [
            kind
            for kind, one in members(ObjectiveConfig).items()
            if model_kind in cast(type[ObjectiveBase], one).trains
        ]
        raise ValueError(f"{fault} (objectives of a model.kind {model_kind!r}: {', '.join(others)})")
