"""The only prefill/decode loop. How an id is chosen is an argument: `pick(logits [B, V], ids [B, T])`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.seeding import torch_generator

Pick = Callable[[Float[Tensor, "B V"], Int[Tensor, "B T"]], Int[Tensor, " B"]]
"""Chooses the next id of every row, from its logits and the ids of its sequence so far.

Those are the whole prompt and the new ones; of an encoder-decoder, whose prompt is another sequence, the target's.
"""


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
    each new id alone. When a row has filled the context, its newest half is read again into the emptied cache
    and decoding goes on, so that text can be longer than the context; a prompt longer than the context is cut
    to its newest half in the same way. `documents` is -1 where the prompt is padding (see `pad_left`).
    After `stop_id` a row yields only `stop_id`; when every row has stopped, so does the loop. The model is in
    evaluation mode until then, or until the iterator is closed.
    """
    if prompt.shape[1] == 0:
        raise ValueError("the prompt is empty: a model needs at least one id to continue from")
    stopped = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    with evaluation_mode(model):
        start = model.start(prompt, max_new_tokens, documents=documents, dtype=dtype)
        cache, ids, context = start.cache, start.ids, model.max_seq_len
        lengths = row_lengths(ids, start.documents)
        prefix = list(lengths) if start.is_prefix else None
        unread, inputs = _whole(ids, lengths, prefix, context)
        for _ in range(max_new_tokens):
            if cache.length + unread.shape[1] > context:
                cache.crop(0)
                unread, inputs = _whole(ids, lengths, prefix, context)
            states = model.hidden(unread, cache=cache, **inputs).states[:, -1:]
            new = pick(model.head(states)[:, -1], ids)
            if stop_id is not None:
                new = torch.where(stopped, stop_id, new)
                stopped |= new == stop_id
            yield new
            if stop_id is not None and bool(stopped.all()):
                return
            unread, inputs = new[:, None], {}  # an id goes on with its row's cached document
            ids = torch.cat((ids, unread), dim=1)
            lengths[:] = [length + 1 for length in lengths]


def _whole(
    ids: Int[Tensor, "B T"], lengths: list[int], prefix: list[int] | None, context: int
) -> tuple[Int[Tensor, "B T_read"], dict[str, Tensor]]:
    """What is read into an empty cache: each row's ids where they fit, else its newest half; and how it is read.

    prefix: how many of a row's ids are seen in both directions: its prompt, and all of what a cut has left.
    """
    before = list(lengths)
    read, documents = newest(ids, lengths, context)
    inputs = {} if documents is None else {"documents": documents}
    if prefix is not None:
        for row, (old, new) in enumerate(zip(before, lengths, strict=True)):
            prefix[row] = prefix[row] if new == old else new
        columns = [read.shape[1] - length + seen for length, seen in zip(lengths, prefix, strict=True)]
        inputs["prefix_lengths"] = torch.tensor(columns, device=ids.device)
    return read, inputs


def row_lengths(ids: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None) -> list[int]:
    """How many ids of each row are no padding."""
    return [ids.shape[1]] * ids.shape[0] if documents is None else (documents >= 0).sum(dim=1).tolist()


def tokens_read(length: int, context: int) -> int:
    """How many of a row's ids are read at once: all where they fit, else the newest half of a context."""
    return length if length <= context else max(1, context // 2)


def newest(
    ids: Int[Tensor, "B T"], lengths: list[int], context: int
) -> tuple[Int[Tensor, "B T_read"], Int[Tensor, "B T_read"] | None]:
    """The last lengths[b] ids of each row, padded on the left, and their documents (None without padding).

    A row longer than the context is cut to the newest half of a context, in `lengths` too.
    """
    lengths[:] = [tokens_read(length, context) for length in lengths]
    longest = max(lengths)
    read = ids[:, -longest:]
    if min(lengths) == longest:
        return read, None
    column = torch.arange(longest, device=ids.device)
    first = longest - torch.tensor(lengths, device=ids.device)
    return read, torch.where(column < first[:, None], -1, 0)


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
