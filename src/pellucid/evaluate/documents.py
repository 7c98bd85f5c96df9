"""How a model predicts the documents of a text: sliding windows, batched and sorted by length, summed by unit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.errors import DataError, TokenizerError
from pellucid.evaluate.record import TextEvaluation
from pellucid.evaluate.token_record import DocumentTokens, document_tokens
from pellucid.evaluate.units import BLOCKS, DOCUMENTS, FEWEST_DOCUMENTS, BlockSums, ByteLengths, DocumentSums
from pellucid.evaluate.windows import Span, require_stride, spans
from pellucid.generate.text import start_ids
from pellucid.losses import token_losses
from pellucid.model import LanguageModel
from pellucid.model.inference import evaluation_mode
from pellucid.runtime.allocator import freed_memory_kept
from pellucid.runtime.precision import Precision
from pellucid.tokenizers import Ids, Tokenizer

Reads = Literal["documents", "stream"]
"""`documents`: each begins anew. `stream`: the text runs on over them, whatever they are."""

_BATCH_TOKENS = 8192
_GROUP_TOKENS = 1 << 18
"""Tokens of documents that are sorted and scored together."""


@dataclass(frozen=True)
class Passage:
    """A document to be scored."""

    text: str
    domain: str = ""
    """Which part of the text it belongs to."""
    where: str = ""
    """For messages: its file, and its line or row there."""


def evaluate_documents(
    model: LanguageModel,
    tokenizer: Tokenizer,
    passages: Iterable[Passage],
    precision: Precision,
    *,
    data: str = "text",
    reads: Reads = "documents",
    window: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    keep: Callable[[DocumentTokens], None] | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TextEvaluation:
    """Score every token of every document, once, by a decoder.

    A document begins after what a text begins after (the end-of-text id; "\\n" for a tokenizer without one), which is
    context and not scored; a tokenizer that has neither leaves the first token of a document out. With reads="stream"
    the documents of a domain are joined to one text, which begins so once: then the numbers do not depend on where
    documents end.

    window: how many ids are read at once, by default the model's context. stride: see `spans`; by default the window.
    max_tokens: only so many first tokens. keep: is given every document with its token losses. progress: is told
    the tokens scored so far, now and then.
    Units are documents, or blocks where there are fewer than `FEWEST_DOCUMENTS` or the text is a stream.
    Raises DataError where there are fewer than two tokens to score, ConfigError for a stride that does not fit.
    """
    window = window or model.max_seq_len
    stride = stride or window
    require_stride(window, stride)
    if reads == "stream":
        passages = _streams(passages)
    first = list(islice(passages := iter(passages), FEWEST_DOCUMENTS))
    is_blocks = reads == "stream" or len(first) < FEWEST_DOCUMENTS
    sums = BlockSums() if is_blocks else DocumentSums()
    opening, lengths, digest, done = opening_ids(tokenizer), ByteLengths(tokenizer), hashlib.sha256(), 0
    for group in _groups(_encoded(tokenizer, chain(first, passages), max_tokens)):
        sequences = [np.concatenate([opening, one.ids]) for one in group]
        found = score_sequences(
            model,
            sequences,
            precision,
            unscored=len(opening),
            window=window,
            stride=stride,
            progress=partial(further, progress, done),
        )
        for one, losses in zip(group, found, strict=True):
            digest.update(one.text)
            starts = lengths.starts(one.ids, len(one.text))
            sums.add(losses, starts, one.passage.domain)
            if keep is not None:
                where, domain = one.passage.where, one.passage.domain
                keep(document_tokens(tokenizer, one.ids, starts, losses, where=where, domain=domain))
            done += len(losses)
    if done < 2:
        raise DataError(f"{data}: the text has {done} token(s) to score; scoring needs at least 2")
    unit = BLOCKS if is_blocks else DOCUMENTS
    return TextEvaluation(data, digest.hexdigest(), tokenizer.fingerprint, unit, window, stride, sums.units())


def score_sequences(
    model: LanguageModel,
    sequences: Sequence[Ids],
    precision: Precision,
    *,
    unscored: int,
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[NDArray[np.float32]]:
    """-log p in nats of each sequence's ids behind its first `unscored` (at least one), [ids - max(1, unscored)] each.

    Windows of like length share a batch, the longest first, so that little is padding; only what is scored goes
    through the head. Padding stands behind the text, where causal attention does not see it. progress: is told the
    tokens scored so far after every batch.
    """
    found = [np.empty(max(0, len(ids) - max(1, unscored)), dtype=np.float32) for ids in sequences]
    wanted = spans([len(ids) for ids in sequences], unscored=unscored, window=window, stride=stride)
    longest_first = sorted(wanted, key=lambda span: span.start - span.stop)
    done = 0
    # Around all batches: narrow copies of the weights are made once, and memory of one serves the next.
    with precision.autocast(), freed_memory_kept():
        for batch in _batches(longest_first, batch_tokens or _BATCH_TOKENS):
            losses = _score(model, sequences, batch, precision)
            progress(done := done + len(losses))
            for span in batch:
                count, place = span.stop + 1 - span.first, span.first - max(1, unscored)
                found[span.sequence][place : place + count], losses = losses[:count], losses[count:]
    return found


def further(progress: Callable[[int], None], before: int, tokens: int) -> None:
    """Tell of the tokens of a part, counted over those of the parts before it."""
    progress(before + tokens)


def opening_ids(tokenizer: Tokenizer) -> NDArray[np.uint32]:
    """What a text begins after; empty where the tokenizer has nothing to say it with."""
    try:
        return np.array(start_ids(tokenizer, "", allow_special=False), dtype=np.uint32)
    except TokenizerError:
        return np.empty(0, dtype=np.uint32)


def _score(
    model: LanguageModel, sequences: Sequence[Ids], batch: Sequence[Span], precision: Precision
) -> NDArray[np.float32]:
    """The losses of a batch's targets, span after span."""
    longest = max(span.stop - span.start for span in batch)
    inputs, targets = (np.zeros((len(batch), longest), dtype=np.int64) for _ in range(2))
    is_scored = np.zeros((len(batch), longest), dtype=np.bool_)
    for row, span in enumerate(batch):
        ids, count = sequences[span.sequence], span.stop - span.start
        inputs[row, :count] = ids[span.start : span.stop]
        targets[row, :count] = ids[span.start + 1 : span.stop + 1]
        is_scored[row, span.first - span.start - 1 : count] = True
    device = model.device
    # Not in inference mode, in which autocast keeps no copies.
    with evaluation_mode(model), torch.no_grad(), precision.autocast():
        states = model.hidden(input_ids=torch.from_numpy(inputs).to(device)).states
        scored = states[torch.from_numpy(is_scored).to(device)]
        wanted = torch.from_numpy(targets[is_scored]).to(device)
        return token_losses(scored, model.head_parameters(), wanted).float().cpu().numpy()


def _batches(longest_first: Sequence[Span], batch_tokens: int) -> Iterator[Sequence[Span]]:
    """As many spans as have at most so many tokens when all are as long as the first; at least one."""
    at = 0
    while at < len(longest_first):
        span = longest_first[at]
        count = max(1, batch_tokens // (span.stop - span.start))
        yield longest_first[at : at + count]
        at += count


# Texts ----------------------------------------------------------------------------------------------


def document_ids(
    tokenizer: Tokenizer, passages: Iterable[Passage], max_tokens: int | None = None
) -> Iterator[NDArray[np.uint32]]:
    """What `evaluate_documents` scores of each document."""
    return (one.ids for one in _encoded(tokenizer, passages, max_tokens))


@dataclass(frozen=True, eq=False)
class _Encoded:
    passage: Passage
    text: bytes
    ids: NDArray[np.uint32]


def _encoded(tokenizer: Tokenizer, passages: Iterable[Passage], max_tokens: int | None) -> Iterator[_Encoded]:
    """Every document with its ids, up to the wanted number of tokens; the last one may be its beginning."""
    left = max_tokens
    for passage in passages:
        try:
            ids = tokenizer.encode(passage.text)
        except TokenizerError as error:
            raise DataError(f"{passage.where}: {error}" if passage.where else str(error)) from None
        text = passage.text.encode()
        if left is not None and len(ids) > left:
            ids = ids[:left]
            text = tokenizer.decode_bytes(ids)
        yield _Encoded(passage, text, ids)
        if left is not None and (left := left - len(ids)) == 0:
            return


def _groups(documents: Iterable[_Encoded]) -> Iterator[list[_Encoded]]:
    """Documents whose token losses are in memory at once."""
    group: list[_Encoded] = []
    tokens = 0
    for document in documents:
        group.append(document)
        tokens += len(document.ids)
        if tokens >= _GROUP_TOKENS:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def _streams(passages: Iterable[Passage]) -> Iterator[Passage]:
    """All documents of a domain as one, in the order in which the domains come."""
    texts: dict[str, list[str]] = {}
    for passage in passages:
        texts.setdefault(passage.domain, []).append(passage.text)
    for domain, parts in texts.items():
        yield Passage("".join(parts), domain, domain)
