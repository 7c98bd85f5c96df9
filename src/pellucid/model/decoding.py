"""The only prefill/decode loop. How an id is chosen is an argument: `pick(logits [B, V], ids [B, T])`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.seeding import torch_generator

Pick = Callable[[Float[Tensor, "B V"], Int[Tensor, "B T"]], Int[Tensor, " B"]]
"""Chooses the next id of every row, from its logits and its ids so far: the whole prompt and the new ones."""


@torch.inference_mode()
def decode(
    model: LanguageModel,
    prompt: Int[Tensor, "B T"],
    max_new_tokens: int,
    pick: Pick,
    *,
    stop_id: int | None = None,
    documents: Int[Tensor, "B T"] | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Yield the next id of every row, up to max_new_tokens times.

    The prompt is read in one pass into a preallocated cache (by an encoder-decoder: into its encoder), then
    each new id alone. When the context is full, the newest half of it is read again into the emptied cache and
    decoding goes on, so that text can be longer than the context; a prompt longer than the context is cut to
    its newest half in the same way. `documents` is -1 where the prompt is padding (see `pad_left`).
    After `stop_id` a row yields only `stop_id`; when every row has stopped, so does the loop. The model is in
    evaluation mode until then, or until the iterator is closed.
    """
    if prompt.shape[1] == 0:
        raise ValueError("the prompt is empty: a model needs at least one id to continue from")
    stopped = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    with evaluation_mode(model):
        start = model.start(prompt, max_new_tokens, documents=documents, dtype=dtype)
        cache, ids, documents, context = start.cache, start.ids, start.documents, model.max_seq_len
        unread, unread_documents = fit(ids, context), fit(documents, context)
        for _ in range(max_new_tokens):
            if cache.length + unread.shape[1] > context:
                unread, unread_documents = fit(ids, context), fit(documents, context)
                cache.crop(0)
            padded = {} if unread_documents is None else {"documents": unread_documents}
            states = model.hidden(unread, cache=cache, **padded).states[:, -1:]
            new = pick(model.head(states)[:, -1], ids)
            if stop_id is not None:
                new = torch.where(stopped, stop_id, new)
                stopped |= new == stop_id
            yield new
            if stop_id is not None and bool(stopped.all()):
                return
            unread, unread_documents = new[:, None], None  # which goes on with the cached document
            ids = torch.cat((ids, unread), dim=1)
            if documents is not None:
                documents = torch.cat((documents, documents[:, -1:]), dim=1)


IdsOrNone = TypeVar("IdsOrNone", Tensor, Tensor | None)


def fit(ids: IdsOrNone, context: int) -> IdsOrNone:
    """What is read of ids [B, T]: all of them where they fit into the context, else the newest half of a context."""
    return ids if ids is None or ids.shape[1] <= context else ids[:, -max(1, context // 2) :]


def pad_left(prompts: Sequence[Int[Tensor, " T_row"]]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Prompts of unequal lengths as one tensor, and its documents: -1 where it is padding, so that none is seen."""
    if not prompts:
        raise ValueError("there is no prompt; give at least one")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt is empty: a model needs at least one id to continue from")
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.stack([F.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
    documents = [F.pad(torch.zeros_like(prompt), (longest - len(prompt), 0), value=-1) for prompt in prompts]
    return ids, torch.stack(documents)


def picker(temperature: float, top_k: int | None, generator: torch.Generator) -> Pick:
    """Greedy at temperature 0; else a draw from softmax(logits / temperature), over the top_k ids if given.

    Plain settings for `model.generate`; generate/sampling.py has the rest.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")

    def pick(logits: Float[Tensor, "B V"], _: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
        if temperature == 0:
            return logits.argmax(dim=-1)
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        logits = logits.float()
        largest = logits.amax(dim=-1, keepdim=True)  # subtracted, so that no temperature overflows
        return draw((logits - largest) / temperature, generator)

    return pick


def keep_top_k(logits: Float[Tensor, "B V"], top_k: int) -> Float[Tensor, "B V"]:
    """Every logit below the k-th largest becomes -inf."""
    threshold = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def draw(logits: Float[Tensor, "B V"], generator: torch.Generator) -> Int[Tensor, " B"]:
    """One id a row from softmax(logits)."""
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def generator_for(device: torch.device, seed: int) -> torch.Generator:
    """The generator that sampling draws from."""
    return torch_generator(device, seed, "sampling")
