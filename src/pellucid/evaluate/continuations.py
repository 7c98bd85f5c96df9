"""How likely a model holds a continuation of a context to be: the one primitive of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import DataError
from pellucid.evaluate.requests import Request, Scored
from pellucid.evaluate.rows import LONGEST_SHARED, Encoded, Row, read_apart, read_together
from pellucid.generate.text import start_ids
from pellucid.losses import token_choices
from pellucid.model import DecoderLM, EncoderDecoderLM
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel
from pellucid.runtime.allocator import freed_memory_kept
from pellucid.runtime.precision import Precision
from pellucid.tokenizers import Tokenizer

_BATCH_TOKENS = 16384
"""Read at once, padding included."""
_BATCH_TOKENS_CPU = 1024
"""More are no faster on CPUs, and what comes between layers outgrows the caches."""

Progress = Callable[[int, int], object]
"""Called with how many tokens have been read, and of how many."""


def score_continuations(
    model: LanguageModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    precision: Precision,
    *,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> list[Scored]:
    """Score each continuation, in the order of the requests, of which the model reads many at once.

    Tokens are made as `encode` says, and cut to the window as `score_encoded` says. Raises as `encode` does.
    """
    encoded = encode(tokenizer, requests, is_source=not model.continues_prompt)
    return score_encoded(model, encoded, precision, batch_tokens=batch_tokens, progress=progress)


def encode(tokenizer: Tokenizer, requests: Sequence[Request], *, is_source: bool = False) -> list[Encoded]:
    """Requests as ids, by the convention of lm-evaluation-harness, so that numbers compare.

    Spaces that end a context belong to its continuation. The ids of both are those of the whole text, divided after
    as many as the context alone has. An empty context is the end-of-text id, after which texts begin (a newline
    where the tokenizer has none), and so is one that the tokenizer makes nothing of. is_source: for
    encoder-decoders, which read the two apart.

    Raises DataError for a continuation without text or ids, TokenizerError for text without ids.
    """
    pairs = [_divided(request, number) for number, request in enumerate(requests)]
    if is_source:
        encoded = [
            Encoded(
                tuple(tokenizer.encode(context, allow_special=True).tolist()) or _beginning(tokenizer),
                _ids(tokenizer, continuation),
            )
            for context, continuation in pairs
        ]
    else:
        contexts = {context: _ids(tokenizer, context) for context, _ in pairs}
        encoded = [
            _cut(tokenizer, contexts[context], _ids(tokenizer, context + continuation))
            for context, continuation in pairs
        ]
    _require_ids(encoded)
    return encoded


def _divided(request: Request, number: int) -> tuple[str, str]:
    if not request.continuation:
        raise DataError(f"request {number}: the continuation is empty; there is nothing to score")
    context = request.context.rstrip()
    return context, request.context[len(context) :] + request.continuation


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text).tolist())


def _beginning(tokenizer: Tokenizer) -> tuple[int, ...]:
    return tuple(start_ids(tokenizer, "", allow_special=False))


def _cut(tokenizer: Tokenizer, before: tuple[int, ...], whole: tuple[int, ...]) -> Encoded:
    """The ids of a whole text, divided after as many as its context has."""
    if whole == before:
        return Encoded(before, ())
    # Where the two melt into fewer tokens than the context alone has, the last one is the continuation's.
    border = min(len(before), len(whole) - 1)
    return Encoded(whole[:border] or _beginning(tokenizer), whole[border:])


def _require_ids(requests: Sequence[Encoded]) -> None:
    """Refuse what would be certain and greedy for any model: log p of nothing is a sum of no terms, 0."""
    for number, request in enumerate(requests):
        if not request.continuation:
            raise DataError(
                f"request {number}: the tokenizer makes no ids of the continuation; there is nothing to score"
            )


def score_encoded(
    model: LanguageModel,
    requests: Sequence[Encoded],
    precision: Precision,
    *,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> list[Scored]:
    """The same of ids. Continuations of one context are read in one row behind it, where that is exact and fits.

    Rows are read longest first, so that those read together are nearly of one length. A context that does not fit
    the model's window is cut at its beginning; of a continuation that does not fit, each part of a window's length
    is scored after the one token before it. Raises DataError for a continuation without ids.
    """
    _require_ids(requests)
    rows = sorted(_rows(model, requests), key=lambda row: row.size, reverse=True)
    logs, is_greedy = np.zeros(len(requests)), np.ones(len(requests), dtype=np.bool_)
    read, total = 0, sum(row.size for row in rows)
    if batch_tokens is None:
        batch_tokens = _BATCH_TOKENS_CPU if model.device.type == "cpu" else _BATCH_TOKENS
    # Around all batches: narrow copies of the weights are made once, and memory of one serves the next.
    with precision.autocast(), freed_memory_kept():
        for batch in _batches(rows, batch_tokens):
            owners = np.concatenate([row.owners for row in batch])
            losses, chosen = _score(model, batch, precision)
            np.subtract.at(logs, owners, losses)
            np.logical_and.at(is_greedy, owners, chosen)
            read += sum(row.size for row in batch)
            if progress is not None:
                progress(read, total)
    cut = {number for row in rows if row.is_cut for number in row.owners.tolist()}
    return [
        Scored(float(logs[number]), len(each.continuation), bool(is_greedy[number]), number in cut)
        for number, each in enumerate(requests)
    ]


def _rows(model: LanguageModel, requests: Sequence[Encoded]) -> Iterator[Row]:
    if isinstance(model, DecoderLM):
        # A sliding window counts columns, so that of a shared row it must not be the shorter.
        window = model.config.attention.window or model.max_seq_len
        yield from read_together(requests, model.max_seq_len, min(window, LONGEST_SHARED))
        return
    start_id = model.start_id if isinstance(model, EncoderDecoderLM) else None
    for number, request in enumerate(requests):
        yield from read_apart(number, request, model.max_seq_len, start_id=start_id)


def _batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[Sequence[Row]]:
    """Rows that are read at once, padded to the longest, which is the first."""
    first = 0
    while first < len(rows):
        end = first + max(1, batch_tokens // rows[first].size)
        yield rows[first:end]
        first = end


def _score(
    model: LanguageModel, batch: Sequence[Row], precision: Precision
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """-log p of every target of every row, and whether each is the likeliest id."""
    device = model.device
    row_of = np.repeat(np.arange(len(batch)), [len(row.targets) for row in batch])
    places = torch.from_numpy(np.stack((row_of, np.concatenate([row.columns for row in batch])))).to(device)
    targets = torch.from_numpy(np.concatenate([row.targets for row in batch])).to(device)
    # Not in inference mode, in which autocast keeps no copies.
    with evaluation_mode(model), torch.no_grad(), precision.autocast():
        states = model.hidden(**{name: x.to(device) for name, x in _inputs(model, batch).items()}).states
        losses, chosen = token_choices(states[places[0], places[1]], model.head_parameters(), targets)
    return losses.cpu().double().numpy(), chosen.cpu().numpy()


def _inputs(model: LanguageModel, batch: Sequence[Row]) -> dict[str, Tensor]:
    """Padded on the right, where nothing of a causal model looks; an encoder must be told."""
    inputs = {"input_ids": _padded([row.inputs for row in batch])}
    sources = [row.source for row in batch if row.source is not None]
    if sources:
        inputs["encoder_ids"] = _padded(sources)
        inputs["encoder_documents"] = _padded([np.zeros_like(source) for source in sources], -1)
    if isinstance(model, DecoderLM) and model.config.prompt_mask == "prefix":
        inputs["prefix_lengths"] = torch.tensor([int(row.columns[0]) + 1 for row in batch])
    if any(row.shared for row in batch):
        every = [np.arange(len(row.inputs)) for row in batch]
        positions = [
            one if row.positions is None else row.positions for row, one in zip(batch, every, strict=True)
        ]
        documents = [np.zeros_like(row.inputs) if row.documents is None else row.documents for row in batch]
        inputs["positions"], inputs["documents"] = _padded(positions), _padded(documents, -1)
        inputs["shared_lengths"] = torch.tensor([row.shared for row in batch])
    return inputs


def _padded(rows: Sequence[NDArray[np.int64]], value: int = 0) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)
