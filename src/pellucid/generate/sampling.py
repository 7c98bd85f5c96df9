"""How the next id is chosen: a list of pure steps over logits, then the largest logit or a draw.

A step is `step(logits [B, V], ids so far [B, T]) → logits [B, V]`. The order is that of `transformers`:
repetition penalty, temperature, top-k, top-p. Steps compute in float32 on the logits' device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pellucid.config import Config, nearest
from pellucid.errors import ConfigError
from pellucid.model.decoding import Pick, draw, generator_for, keep_top_k

Step = Callable[[Float[Tensor, "B V"], Int[Tensor, "B T"]], Float[Tensor, "B V"]]
"""One change to the logits of the next id, given all ids so far. It changes nothing else."""


class SamplingConfig(Config):
    """How to choose ids and how many. What is left out draws from the model's own distribution, unchanged."""

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Logits are divided by it: below 1 bolder, above 1 more varied; 0 takes the likeliest id (greedy)."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw only from the k likeliest ids. Left out: from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the fewest ids that together have this probability. 1: from all."""
    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1, ids that the prompt or the output already has become less likely. 1: no change."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Stop after this many new ids, where the end of the text has not come before."""
    seed: int = Field(default=0, ge=0)
    """Equal seeds give equal text, for the same model, prompt and settings on the same kind of machine."""

    def steps(self, vocab_size: int | None = None) -> list[Step]:
        """The steps that these settings ask for, in order; those that would change nothing are left out.

        Logits from `vocab_size` on are cut off: a model's vocabulary may be padded beyond its tokenizer's.
        """
        penalty, temperature, top_k, top_p = self.repetition_penalty, self.temperature, self.top_k, self.top_p
        steps: list[Step] = []
        if penalty != 1:
            steps.append(lambda logits, ids: penalise_repetition(logits, ids, penalty))
        if vocab_size is not None:
            steps.append(lambda logits, ids: logits[:, :vocab_size])
        if temperature == 0:
            return steps  # what follows cannot move the largest logit
        if temperature != 1:
            steps.append(lambda logits, ids: logits / temperature)
        if top_k is not None:
            steps.append(lambda logits, ids: keep_top_k(logits, top_k))
        if top_p < 1:
            steps.append(lambda logits, ids: keep_top_p(logits, top_p))
        return steps

    def build(self, device: torch.device, *, vocab_size: int | None = None) -> Pick:
        """The `pick` of `pellucid.model.decoding.decode`, its draws seeded anew."""
        generator = None if self.temperature == 0 else generator_for(device, self.seed)
        return pick_after(self.steps(vocab_size), generator)


PRESETS: Mapping[str, SamplingConfig] = {
    # No preset penalises repetition: where ids are characters or bytes, that would forbid spelling.
    "greedy": SamplingConfig(temperature=0.0),
    "precise": SamplingConfig(temperature=0.5, top_p=0.9),
    "balanced": SamplingConfig(temperature=0.8, top_k=50, top_p=0.95),
    "creative": SamplingConfig(temperature=1.0, top_p=0.98),
}
"""Named settings, from the most predictable to the most varied."""


def preset(name: str) -> SamplingConfig:
    """The settings of that name. Raises ConfigError, with the nearest name, when there are none."""
    if name not in PRESETS:
        raise ConfigError(
            f"there is no sampling preset {name!r}{nearest(name, PRESETS)} (presets: {', '.join(PRESETS)})"
        )
    return PRESETS[name]


def pick_after(steps: Sequence[Step], generator: torch.Generator | None) -> Pick:
    """Apply the steps, in float32, then take the largest logit (no generator) or draw from their softmax."""

    def pick(logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
        logits = logits.float()
        for step in steps:
            logits = step(logits, ids)
        return logits.argmax(dim=-1) if generator is None else draw(logits, generator)

    return pick


def penalise_repetition(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], penalty: float
) -> Float[Tensor, "B V"]:
    """The logit l of each id in `ids`, however often there, becomes l / penalty if l > 0, else l · penalty.

    The paper divides throughout, which would make negative logits likelier; `transformers` and we do not.
    Source: Keskar et al. 2019 (CTRL), arXiv:1909.05858, section 4.1.
    """
    seen = logits.gather(dim=-1, index=ids)
    return logits.scatter(dim=-1, index=ids, src=torch.where(seen > 0, seen / penalty, seen * penalty))


def keep_top_p(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Every logit outside the smallest set of likeliest ids with probability ≥ top_p becomes -inf.

    Summed from the least likely up, where float32 loses least: an id goes while the sum up to and with it
    is ≤ 1 - top_p. The likeliest always stays.  Source: Holtzman et al. 2019, arXiv:1904.09751, section 3.1.
    """
    ascending, order = logits.sort(dim=-1)
    removed = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    removed[:, -1] = False
    return logits.masked_fill(removed.scatter(dim=-1, index=order, src=removed), -torch.inf)
