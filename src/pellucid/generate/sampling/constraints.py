"""Steps that say what may or must come: biases, bans, forced ids, no end of text too early.

A step returns new logits [B, V] and leaves those it was given as they are; what may not come is -inf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.generate.written import Written


def forbid_from(logits: Float[Tensor, "B V"], vocab_size: int) -> Float[Tensor, "B V"]:
    """Logits from `vocab_size` on become -inf: a model's vocabulary may be padded beyond its tokenizer's."""
    beyond = torch.arange(logits.shape[-1], device=logits.device) >= vocab_size
    return logits.masked_fill(beyond, -torch.inf)


def add_bias(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, " N"], values: Float[Tensor, " N"]
) -> Float[Tensor, "B V"]:
    """logit[ids[i]] + values[i]."""
    values = values.to(logits).expand(logits.shape[0], -1)
    return logits.index_add(dim=1, index=ids.to(logits.device), source=values)


def tables_of(sequences: Iterable[Sequence[int]]) -> list[Int[Tensor, "N n"]]:
    """The sequences as tables, one for each length n, for `forbid_sequences`."""
    tables: dict[int, list[Sequence[int]]] = {}
    for sequence in sequences:
        tables.setdefault(len(sequence), []).append(sequence)
    return [torch.tensor(rows) for rows in tables.values()]


def forbid_sequences(
    logits: Float[Tensor, "B V"], written: Written, table: Int[Tensor, "N n"]
) -> Float[Tensor, "B V"]:
    """The last id of each sequence becomes -inf where the ids before it are the last ones written.

    A sequence of one id is never written at all. Equals `bad_words_ids` of `transformers`, which however lets the
    end of text through.
    """
    table = table.to(logits.device)
    before, last = table[:, :-1], table[:, -1]
    length, width = before.shape[1], written.ids.shape[1]
    if length > width:
        return logits
    ending = written.ids[:, width - length :]
    completes = (ending[:, None] == before).all(dim=-1)
    if length and written.lengths is not None:
        completes &= written.lengths.to(logits.device)[:, None] >= length
    return logits.index_add(
        dim=1, index=last, source=torch.where(completes, -torch.inf, 0.0).to(logits.dtype)
    )


def forbid_end_before(
    logits: Float[Tensor, "B V"], written: Written, end_id: int, min_new_tokens: int
) -> Float[Tensor, "B V"]:
    """The end of text becomes -inf in rows that have fewer than `min_new_tokens` new ids."""
    early = (written.num_new < min_new_tokens).to(logits.device)
    changed = logits.clone()
    changed[:, end_id] = torch.where(early, -torch.inf, logits[:, end_id])
    return changed


def force(
    logits: Float[Tensor, "B V"], written: Written, forced: Int[Tensor, " N"], first: int = 0
) -> Float[Tensor, "B V"]:
    """In a row with first + i new ids, i < N, the logit of forced[i] becomes 0 and every other one -inf."""
    place = written.num_new.to(logits.device) - first
    due = (place >= 0) & (place < len(forced))
    if not due.any():
        return logits
    chosen = forced.to(logits.device)[place.clamp(0, len(forced) - 1)]
    only = torch.full_like(logits, -torch.inf).scatter(dim=1, index=chosen[:, None], value=0.0)
    return torch.where(due[:, None], only, logits)
