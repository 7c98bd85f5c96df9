"""SamplingConfig: every setting of how ids are chosen. It imports no torch until its steps are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pellucid.config import Config
from pellucid.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.generate.written import Step

Id = Annotated[int, Field(ge=0)]


class SamplingConfig(Config):
    """How to choose ids and how many. What is left out draws from the model's own distribution, unchanged."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it: below 1 bolder, above 1 more varied; 0 takes the likeliest id (greedy)."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw only from the k likeliest ids. Left out: from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the fewest likeliest ids that together have this probability. 1: from all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw only from ids at least this many times as likely as the likeliest. 0: from all."""
    typical_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the ids nearest to the expected surprise that together have this probability. 1: from all."""
    top_n_sigma: float | None = Field(default=None, gt=0)
    """Draw only from ids whose logit is at most so many standard deviations below the largest. Left out: from all."""
    epsilon_cutoff: float = Field(default=0.0, ge=0, lt=1)
    """Draw only from ids with at least this probability. 0: from all."""
    eta_cutoff: float = Field(default=0.0, ge=0, lt=1)
    """As epsilon_cutoff, but lower where the choice is open (the entropy is high). 0: from all."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1, ids that the prompt or the output already has become less likely. 1: no change."""
    frequency_penalty: float = 0.0
    """Taken from the logit of an id for each time that it was generated. Below 0: repeat more."""
    presence_penalty: float = 0.0
    """Taken once from the logit of every id that was generated. Below 0: repeat more."""
    no_repeat_ngram_size: int | None = Field(default=None, ge=1)
    """No run of so many ids comes twice, the prompt included. Left out: any may."""

    logit_bias: Mapping[Id, float] = {}
    """Added to the logits of these ids: id → addend."""
    banned: tuple[tuple[Id, ...], ...] = ()
    """Sequences of ids that are never completed; one id stands for the sequence of that id."""
    forced: tuple[Id, ...] = ()
    """The first new ids, whatever the model says."""
    force_end: bool = False
    """Whether the last of max_new_tokens ids is the end of the text."""

    min_new_tokens: int = Field(default=0, ge=0)
    """The text does not end before it has so many new ids."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Stop after this many new ids, where the end of the text has not come before."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Stop before any of these texts, which is left out of the output."""
    seed: int = Field(default=0, ge=0)
    """Equal seeds give equal text, for the same model, prompt and settings on the same kind of machine."""

    @field_validator("banned", mode="before")
    @classmethod
    def _one_id_is_a_sequence(cls, banned: Any) -> Any:
        if not isinstance(banned, Sequence) or isinstance(banned, str):
            return banned
        return [(entry,) if isinstance(entry, int) else entry for entry in banned]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.temperature < 1e-6:
            raise ValueError(
                f"temperature must be 0 (greedy) or at least 1e-6, not {self.temperature}; 0 does what it would"
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens} and max_new_tokens only {self.max_new_tokens}"
            )
        if len(self.forced) + self.force_end > self.max_new_tokens:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, too few for {len(self.forced)} forced ids"
                + (" and the forced end" if self.force_end else "")
            )
        if () in self.banned:
            raise ValueError("banned has a sequence of no ids, which would forbid everything; leave it out")
        return self

    def check(self, vocab_size: int) -> None:
        """Raises ConfigError for ids that a vocabulary of this size has not."""
        named = {
            "logit_bias": self.logit_bias,
            "banned": [each for sequence in self.banned for each in sequence],
            "forced": self.forced,
        }
        for name, ids in named.items():
            if unknown := sorted({each for each in ids if each >= vocab_size}):
                raise ConfigError(
                    f"{name}: there is no id {', '.join(map(str, unknown))}; "
                    f"the vocabulary has {vocab_size} ids, 0 to {vocab_size - 1}"
                )

    def steps(self, vocab_size: int | None = None, end_id: int | None = None) -> list[Step]:
        """The steps that these settings ask for, in order; those that would change nothing are left out.

        Logits from `vocab_size` on are forbidden: a model's vocabulary may be padded beyond its tokenizer's.
        `end_id` is the end of text; without one nothing ends early. Raises as `check` does.
        """
        from pellucid.generate.sampling import order

        if vocab_size is not None:
            self.check(vocab_size)
        return order.steps(self, vocab_size, end_id)
