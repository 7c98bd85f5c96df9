"""The head's matrix product and the cross-entropy together, without all logits at once in float32.

The logits of a batch are often its largest tensor (tokens x vocabulary). Here they exist for a chunk of tokens only,
in the format of matrix products: its loss and its gradients are taken at once, in the forward pass, and the logits are
dropped. They are computed and used in tiles of ids that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.interface import Head, soft_cap

CHUNK_BYTES = 128 << 20
"""Of a chunk's logits; with a soft-cap, its slopes take as much again. Fewer chunks mean fewer sums over the table's
gradient."""
_GROUP_IDS = 16
"""Ids of a tile that are looked at together. A tile has another number of groups than a group has ids: dynamo takes
equal sizes for one and would build its kernel again for the last tile."""
_SCORING_BYTES = 64 << 20
"""Of float32 logits while scoring."""


@dataclass(frozen=True)
class LossSums:
    """Sums over the positions of a batch, float32 (float64 for float64 states)."""

    objective: Float[Tensor, ""]
    """What is learned: Σ weight · loss, smoothing and z-loss included. Carries the gradient."""
    cross_entropy: Float[Tensor, ""]
    """Σ weight · (-log p(target)), as it is reported: without either. No gradient."""
    weight: Float[Tensor, ""]


class LinearCrossEntropy:
    """Σ weight · (-log softmax(logits)[target]) from the states before the head.

    logits = states · tableᵀ, cut to the vocabulary and soft-capped where the head says so.
    states [N, D], table [V, D], targets [N], weights [N]. With label smoothing ε the target distribution is
    (1 - ε) on the target and ε / V on every id; with z-loss ζ, ζ · log²Σexp(logits) is added, which keeps the
    logits from drifting away together.  Matrix products run in autocast's format, sums in float32; exponentials are
    computed in float32 and kept for the gradient in autocast's format.
    First derivatives only: the gradients are computed with the loss.
    Source: Szegedy et al. 2015, arXiv:1512.00567, sec. 7 (smoothing); Chowdhery et al. 2022, arXiv:2204.02311,
    sec. 5 (z-loss); Wijmans et al. 2024, arXiv:2411.09009 and Hsu et al. 2024, arXiv:2410.10989 (chunked, gradient
    in the forward pass).
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        *,
        tile_ids: int | None = None,
        compiled: bool = False,
    ) -> None:
        self.label_smoothing, self.z_loss, self.tile_ids = label_smoothing, z_loss, tile_ids
        self._kernels = _Kernels.compiled() if compiled else _Kernels()

    def __call__(
        self,
        states: Float[Tensor, "N D"],
        head: Head,
        targets: Int[Tensor, " N"],
        weights: Float[Tensor, " N"],
    ) -> LossSums:
        settings = _Settings(self.label_smoothing, self.z_loss, head.vocab_size, head.softcap, self.tile_ids)
        found = _Tiled.apply(states, head.weight, targets, weights, settings, self._kernels)
        objective, cross_entropy = cast(tuple[Tensor, Tensor], found)
        return LossSums(objective, cross_entropy, weights.sum())


@dataclass(frozen=True)
class _Settings:
    label_smoothing: float
    z_loss: float
    vocab_size: int
    softcap: float | None
    tile_ids: int | None

    def tiles(self) -> Iterator[tuple[slice, int]]:
        """The ids of each tile, and of how many ids its groups are: a divisor. Rows that pad the table are in none."""
        width, ids = self.tile_ids or self.vocab_size, self.vocab_size
        group = math.gcd(width, _GROUP_IDS) if self.tile_ids else width
        grouped = ids - ids % group
        for first in range(0, grouped, width):
            yield slice(first, min(grouped, first + width)), group
        if grouped < ids:
            yield slice(grouped, ids), ids - grouped


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        weights: Tensor,
        settings: _Settings,
        kernels: _Kernels,
    ) -> tuple[Tensor, Tensor]:
        kind = states.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        wide = torch.float64 if states.dtype == torch.float64 else torch.float32
        narrow_states, narrow_table = states.to(compute), table.to(compute)
        of_states, of_table = (
            torch.empty(tensor.shape, dtype=wide, device=tensor.device) if wanted else None
            for tensor, wanted in zip((states, table), ctx.needs_input_grad, strict=False)
        )
        if of_table is not None:
            of_table[settings.vocab_size if len(states) else 0 :] = 0  # the rest is set by the first chunk
        sums = torch.zeros(2, dtype=wide, device=states.device)
        rows = max(1, CHUNK_BYTES // (settings.vocab_size * compute.itemsize))
        with torch.autocast(kind, enabled=False):
            for part in (slice(first, first + rows) for first in range(0, len(states), rows)):
                chunk = _Chunk(narrow_states[part], targets[part], weights[part].to(wide), settings, kernels)
                sums += chunk.sums(narrow_table)
                of_part = None if of_states is None else of_states[part]
                chunk.differentiate(narrow_table, of_part, of_table, is_first=part.start == 0)
        ctx.save_for_backward(of_states, of_table)
        ctx.dtypes = states.dtype, table.dtype
        objective, cross_entropy = sums.unbind()
        ctx.mark_non_differentiable(cross_entropy)
        return objective, cross_entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_inputs = (
            None if gradient is None else gradient.mul_(gradients[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *of_inputs, None, None, None, None


class _Chunk:
    """Some positions: first the sums of their losses, then, tile by tile, the gradients of states and table.

    A tile is some ids, [ids, positions]: a row an id, so that the gradient of the table's rows is a product of two
    contiguous matrices, which oneDNN computes at twice the speed of one with a transposed left factor.
    """

    def __init__(
        self, states: Tensor, targets: Tensor, weights: Tensor, settings: _Settings, kernels: _Kernels
    ) -> None:
        self.states, self.targets, self.weights = states, targets, weights
        self.settings, self.kernels = settings, kernels
        self.log_sum = torch.full_like(weights, -torch.inf)
        """log Σ exp(logits) of each position."""
        self.positions = torch.arange(len(targets), device=targets.device)
        self.of_target = torch.zeros_like(weights)
        """The logit of each position's target."""
        self.tiles: list[_Tile] = []

    def sums(self, table: Tensor) -> Tensor:
        """(objective, cross-entropy), each weighted and summed."""
        settings, total = self.settings, torch.zeros_like(self.weights)
        for ids, group in settings.tiles():
            logits = table[ids] @ self.states.T
            if settings.label_smoothing:
                total += _capped(logits, settings.softcap, total.dtype).sum(dim=0)
            is_here, places = self._targets_in(ids)
            found = _capped(logits[places], settings.softcap, total.dtype)
            self.of_target = torch.where(is_here, found, self.of_target)
            groups = logits.unflatten(0, (-1, group))
            exponentials, largest, slope, self.log_sum = self.kernels.exponentials(
                groups, self.log_sum, settings.softcap
            )
            self.tiles.append(_Tile(ids, exponentials, largest, slope))
        cross_entropy = loss = self.log_sum - self.of_target
        if settings.label_smoothing:
            uniform = self.log_sum - total / settings.vocab_size
            loss = (1 - settings.label_smoothing) * loss + settings.label_smoothing * uniform
        if settings.z_loss:
            loss = loss + settings.z_loss * self.log_sum.square()
        return torch.stack([self.weights @ loss, self.weights @ cross_entropy])

    def differentiate(
        self, table: Tensor, of_states: Tensor | None, of_table: Tensor | None, *, is_first: bool
    ) -> None:
        """Set the objective's gradient by the states; set the one by the table, or add to it if not the first chunk.

        The tiles are given up on the way.
        """
        settings = self.settings
        at_target = self._at_target()
        # Of the shape that the products have, and not a view: adding to a transposed matrix takes nine times as long.
        sum_of_states = None if of_states is None else self.weights.new_zeros(self.states.shape[::-1])
        while self.tiles:
            tile = self.tiles.pop(0)
            gradient = self.kernels.gradient(
                tile.exponentials,
                tile.largest,
                tile.slope,
                self.log_sum,
                self.weights,
                settings.label_smoothing,
                settings.z_loss,
                settings.vocab_size,
            ).flatten(0, 1)
            is_here, places = self._targets_in(tile.ids)
            value = torch.where(is_here, at_target.to(gradient.dtype), gradient[places])
            gradient.index_put_(places, value)
            if sum_of_states is not None:
                sum_of_states += table[tile.ids].T.contiguous() @ gradient
            if of_table is not None:
                add = of_table[tile.ids].copy_ if is_first else of_table[tile.ids].add_
                add(gradient @ self.states)
        if of_states is not None and sum_of_states is not None:
            of_states.copy_(sum_of_states.T)

    def _at_target(self) -> Tensor:
        """The objective's gradient by the logit of each target: rounded once, since p - 1 is small where p is large."""
        settings, of_log_p = self.settings, (self.of_target - self.log_sum).exp()
        if settings.z_loss:
            of_log_p = of_log_p * (1 + 2 * settings.z_loss * self.log_sum)
        gradient = of_log_p - settings.label_smoothing / settings.vocab_size - (1 - settings.label_smoothing)
        if settings.softcap is not None:
            gradient = gradient * (1 - (self.of_target / settings.softcap).square())
        return gradient * self.weights

    def _targets_in(self, ids: slice) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Whether each position's target is among the ids, and where in their tile: anywhere, if it is not."""
        rows = self.targets - ids.start
        is_here = (rows >= 0) & (rows < ids.stop - ids.start)
        return is_here, (rows.clamp(0, ids.stop - ids.start - 1), self.positions)


@dataclass(frozen=True)
class _Tile:
    """What is kept of a tile's logits, [groups, ids of a group, positions], until all of them are known."""

    ids: slice
    exponentials: Tensor
    """exp(logit - the largest of its group), in the logits' dtype: one exponential an entry for loss and gradient."""
    largest: Tensor
    """[groups, positions]"""
    slope: Tensor | None
    """Of the soft-cap, where there is one."""


def _exponentials(
    logits: Tensor, log_sum: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """What a `_Tile` keeps, and log Σ exp over its ids and those before them.

    By groups of rows that fit the nearest cache: down all rows of a tile at once, a processor would wait for memory.
    """
    capped = _capped(logits, softcap, log_sum.dtype)
    largest = capped.amax(dim=1)
    exponentials = (capped - largest.unsqueeze(1)).exp()
    of_tile = (largest + exponentials.sum(dim=1).log()).logsumexp(dim=0)
    slope = None if softcap is None else (1 - (capped / softcap).square()).to(logits.dtype)
    return exponentials.to(logits.dtype), largest, slope, torch.logaddexp(log_sum, of_tile)


def _gradient(
    exponentials: Tensor,
    largest: Tensor,
    slope: Tensor | None,
    log_sum: Tensor,
    weights: Tensor,
    label_smoothing: float,
    z_loss: float,
    vocab_size: int,
) -> Tensor:
    """The objective's gradient by a tile's logits, in their dtype, but for what the targets add to it."""
    scale = (largest - log_sum).exp() * weights
    if z_loss:
        scale = scale * (1 + 2 * z_loss * log_sum)
    gradient = exponentials.to(weights.dtype) * scale.unsqueeze(1)
    if label_smoothing:
        gradient = gradient - label_smoothing / vocab_size * weights
    if slope is not None:
        gradient = gradient * slope
    return gradient.to(exponentials.dtype)


def _capped(logits: Tensor, softcap: float | None, dtype: torch.dtype) -> Tensor:
    return logits.to(dtype) if softcap is None else soft_cap(logits.to(dtype), softcap)


@dataclass(frozen=True)
class _Kernels:
    """The work on a tile besides matrix products: as it stands, or built by torch.compile."""

    exponentials: Callable[..., tuple[Tensor, Tensor, Tensor | None, Tensor]] = _exponentials
    gradient: Callable[..., Tensor] = _gradient

    @classmethod
    def compiled(cls) -> _Kernels:
        # One graph for every length of a chunk and width of a tile, and one for a rest of a single group: dynamo gives
        # up a function after eight graphs.
        return cls(torch.compile(_exponentials, dynamic=True), torch.compile(_gradient, dynamic=True))


def token_losses(states: Float[Tensor, "N D"], head: Head, targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """-log p of each target, in nats, float32 (float64 for float64 states).

    For scoring: no gradients, one chunk of logits at a time.
    """
    parts = [_losses(logits, wanted) for logits, wanted in _scored(states, head, targets)]
    return torch.cat(parts)


def token_choices(
    states: Float[Tensor, "N D"], head: Head, targets: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """(-log p of each target as `token_losses` has it, whether the target is the likeliest of all ids)."""
    losses: list[Tensor] = []
    chosen: list[Tensor] = []
    for logits, wanted in _scored(states, head, targets):
        losses.append(_losses(logits, wanted))
        chosen.append(logits.argmax(dim=-1) == wanted)
    return torch.cat(losses), torch.cat(chosen)


def _scored(states: Tensor, head: Head, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits in float32, or float64 where the states are; targets), some positions at a time; one part at least."""
    chunk = max(1, _SCORING_BYTES // (4 * head.weight.shape[0]))
    for i in range(0, max(1, states.shape[0]), chunk):
        logits = head.logits(states[i : i + chunk])
        yield logits if logits.dtype == torch.float64 else logits.float(), targets[i : i + chunk]


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none")
