"""The head's matrix product and the cross-entropy together, a chunk of tokens at a time.

The logits of a batch are often its largest tensor (tokens x vocabulary). Here they exist for one chunk
only: its loss and its gradients are taken at once, in the forward pass, and the logits are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.interface import Head, soft_cap

_CHUNK_BYTES = 64 << 20  # of float32 logits; large enough for full matrix-product speed


class LinearCrossEntropy:
    """Σ weight · (-log softmax(logits)[target]), and Σ weight: (sum, weight), both float32 scalars.

    logits = states · tableᵀ, cut to the vocabulary and soft-capped where the head says so.
    states [N, D], table [V, D], targets [N], weights [N]. With label smoothing ε the target distribution is
    (1 - ε) on the target and ε / V on every id.  Matrix products run in autocast's format, the softmax and
    all sums in float32. First derivatives only: the gradients are computed with the loss.
    Source: Szegedy et al. 2015, arXiv:1512.00567, sec. 7 (smoothing); Wijmans et al. 2024, arXiv:2411.09009
    and Hsu et al. 2024, arXiv:2410.10989 (chunked, gradient in the forward pass).
    """

    def __init__(self, label_smoothing: float = 0.0, *, compiled: bool = False) -> None:
        self.label_smoothing = label_smoothing
        self._softmax: Callable[..., tuple[Tensor, Tensor]] = (
            torch.compile(_loss_and_logit_gradient, dynamic=False) if compiled else _loss_and_logit_gradient
        )

    def __call__(
        self,
        states: Float[Tensor, "N D"],
        head: Head,
        targets: Int[Tensor, " N"],
        weights: Float[Tensor, " N"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        loss = cast(
            Tensor,
            _Chunked.apply(
                states,
                head.weight,
                targets,
                weights,
                (self.label_smoothing, head.vocab_size, head.softcap),
                self._softmax,
            ),
        )
        return loss, weights.sum()


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        weights: Tensor,
        settings: tuple[float, int, float | None],
        softmax: Callable[..., tuple[Tensor, Tensor]],
    ) -> Tensor:
        kind = states.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        narrow_states, narrow_table = states.to(compute), table.to(compute)
        wide = torch.float64 if states.dtype == torch.float64 else torch.float32
        loss = torch.zeros((), dtype=wide, device=states.device)
        wants_states, wants_table = ctx.needs_input_grad[:2]
        states_gradient = torch.empty_like(states) if wants_states else None
        table_gradient = torch.zeros(table.shape, dtype=wide, device=table.device) if wants_table else None
        chunk = max(1, _CHUNK_BYTES // (4 * table.shape[0]))
        with torch.autocast(kind, enabled=False):
            for start in range(0, states.shape[0], chunk):
                part = slice(start, start + chunk)
                rows = narrow_states[part]
                chunk_loss, gradient = softmax(
                    rows @ narrow_table.T, targets[part], weights[part].to(wide), *settings
                )
                loss += chunk_loss
                if states_gradient is not None:
                    states_gradient[part] = gradient @ narrow_table
                if table_gradient is not None:
                    table_gradient += gradient.T @ rows
        ctx.save_for_backward(states_gradient, table_gradient)
        ctx.table_dtype = table.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_loss,) = gradients
        states_gradient, table_gradient = ctx.saved_tensors
        for gradient in (states_gradient, table_gradient):
            if gradient is not None:
                gradient.mul_(of_loss)
        if table_gradient is not None:
            table_gradient = table_gradient.to(ctx.table_dtype)
        return states_gradient, table_gradient, None, None, None, None


def _loss_and_logit_gradient(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    label_smoothing: float,
    vocab_size: int,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """The weighted loss sum of a chunk, and its gradient with respect to the logits, in the logits' dtype.

    Columns from vocab_size on are padding of the table: they have no probability and no gradient.
    """
    rows = logits.shape[1]
    wide = logits[:, :vocab_size].to(weights.dtype)
    capped = wide if softcap is None else soft_cap(wide, softcap)
    log_p = capped.log_softmax(dim=-1)
    loss = -log_p.gather(1, targets[:, None])[:, 0]
    gradient = log_p.exp()
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(dim=-1)
        gradient = gradient - label_smoothing / vocab_size
    ids = torch.arange(vocab_size, device=logits.device)
    gradient = torch.where(ids == targets[:, None], gradient - (1 - label_smoothing), gradient)
    if softcap is not None:
        gradient = gradient * (1 - (capped / softcap).square())
    gradient = (gradient * weights[:, None]).to(logits.dtype)
    return (weights * loss).sum(), F.pad(gradient, (0, rows - vocab_size)) if rows > vocab_size else gradient


def token_losses(states: Float[Tensor, "N D"], head: Head, targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """-log p of each target, in nats, float32. For scoring: no gradients, one chunk of logits at a time."""
    chunk = max(1, _CHUNK_BYTES // (4 * head.weight.shape[0]))
    parts = [
        F.cross_entropy(head.logits(states[i : i + chunk]).float(), targets[i : i + chunk], reduction="none")
        for i in range(0, states.shape[0], chunk)
    ]
    return torch.cat(parts)
