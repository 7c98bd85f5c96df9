"""One attention layer of the pass, computed again beside it from what hooks saw go into it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.model.attention import Attention
from pellucid.model.kernels import AttentionContext
from pellucid.model.observe import Observation, Step


@dataclass(frozen=True, eq=False)
class Attended:
    """The inside of an attention layer, which its fast kernel never writes out."""

    step: Step
    attention: Attention
    context: AttentionContext
    weights: Float[Tensor, "B H T S"]
    plain_queries: Float[Tensor, "B H T E"]
    """As the query matrix (and QK-norm) gave them in the pass, before any rotation."""
    queries: Float[Tensor, "B H T E"]
    keys: Float[Tensor, "B K S E"]
    values: Float[Tensor, "B K S E"]
    mixed: Float[Tensor, "B T HE"]
    """The values as the pass's own kernel mixed them."""

    @property
    def error(self) -> float:
        """The largest difference between weights · values and what the pass's own kernel gave."""
        groups = self.weights.shape[1] // self.values.shape[1]
        again = self.weights @ self.values.repeat_interleave(groups, dim=1)  # [B, H, T, E]
        return (again.transpose(1, 2).flatten(2) - self.mixed).abs().max().item()

    @property
    def seen(self) -> Tensor | None:
        """Whether the mask lets a query see a key, [T, S]; None where each sees all."""
        queries, keys = self.weights.shape[2:]
        seen = self.context.seen(queries, keys, self.weights.device)
        return None if seen is None else seen[0, 0]

    def spread(self) -> Float[Tensor, " H"]:
        """How evenly each head attends: 1 is evenly over all keys in sight, 0 is one key alone.

        The entropy of each query's weights, as a share of the largest possible, averaged over the queries
        that have a choice. Without any such query: 0.
        """
        queries, keys = self.weights.shape[2:]
        in_sight = torch.full((queries,), keys) if self.seen is None else self.seen.sum(dim=-1)
        chooses = in_sight > 1
        if not chooses.any():
            return torch.zeros(self.weights.shape[1])
        weights = self.weights[0][:, chooses].double()
        entropy = -torch.xlogy(weights, weights).sum(dim=-1)  # [H, choosing queries]
        return (entropy / in_sight[chooses].log()).mean(dim=-1)


@torch.inference_mode()
def attend_again(observation: Observation, name: str) -> Attended:
    """`Attention.weights` on the inputs that the layer of that name had in the pass."""
    step = observation.step(name)
    attention, x, context = step.module, step.input, step.inputs[1]
    assert isinstance(attention, Attention)
    assert isinstance(context, AttentionContext)
    source = step.keywords.get("source")
    keys, values = attention.keys_and_values(x if source is None else source, context)
    plain = (
        observation.step(f"{name}.query_norm").result
        if f"{name}.query_norm" in observation
        else observation.step(f"{name}.query").result.unflatten(-1, (-1, attention.head_dim))
    ).transpose(1, 2)  # [B, T, H, E] until here
    return Attended(
        step=step,
        attention=attention,
        context=context,
        weights=attention.weights(x, context, source=source),
        plain_queries=plain,
        queries=context.rotate(plain),
        keys=keys,
        values=values,
        mixed=observation.step(f"{name}.output").input,
    )
