"""Which tokens of a text are hard for a model, as values and as JSON. No torch."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class DocumentTokens:
    """A document with its losses: token by token; tokens that end inside a character are one span."""

    where: str
    """The file, and the line or row where it holds several documents."""
    domain: str
    ids: tuple[tuple[int, ...], ...]
    """Of each span: one, or several that are whole characters only together."""
    texts: tuple[str, ...]
    """Of each span; U+FFFD for bytes that are no UTF-8."""
    starts: NDArray[np.int64]
    """The byte of the document's text at which each span begins."""
    losses: NDArray[np.float32]
    """-log p of each in nats, summed over its ids."""
    unscored: int = 0
    """So many first spans had nothing before them; their losses are no numbers."""
    against: NDArray[np.float32] | None = None
    """The losses of another model."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    def beside(self, other: DocumentTokens) -> DocumentTokens:
        """With the losses of another model on the same ids. Raises DataError for other ones."""
        if self.ids != other.ids:
            raise DataError(
                f"{self.where}: the models cut it into different tokens; compare bits per byte instead"
            )
        return replace(self, against=other.losses)

    def to_dict(self) -> dict[str, Any]:
        columns = {"nats": self.losses, **({} if self.against is None else {"nats_against": self.against})}
        names = ("text", "ids", "byte", *columns)
        values = (
            [None if place < self.unscored else _plain(x) for place, x in enumerate(column.tolist())]
            for column in columns.values()
        )
        rows = zip(self.texts, map(list, self.ids), self.starts.tolist(), *values, strict=True)
        return {
            "where": self.where,
            "domain": self.domain,
            "tokens": [dict(zip(names, row, strict=True)) for row in rows],
        }


def document_tokens(
    tokenizer: Tokenizer,
    ids: NDArray[np.uint32],
    starts: NDArray[np.int64],
    losses: NDArray[np.float32],
    *,
    where: str,
    domain: str,
) -> DocumentTokens:
    """The losses of the last ids of a document, with what the ids say. starts: [ids + 1], as of `ByteLengths`."""
    firsts, texts = _spans(tokenizer, ids.tolist())
    unscored = len(ids) - len(losses)
    every = np.concatenate([np.zeros(unscored, dtype=np.float64), losses])
    sums = np.add.reduceat(every, firsts) if firsts else every
    before = sum(first < unscored for first in firsts)
    sums[:before] = np.nan
    ends = [*firsts[1:], len(ids)]
    return DocumentTokens(
        where,
        domain,
        tuple(tuple(ids[first:end].tolist()) for first, end in zip(firsts, ends, strict=True)),
        texts,
        starts[np.array(firsts, dtype=np.int64)],
        sums.astype(np.float32),
        before,
    )


def _spans(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """(the places at which spans begin, the text of each)."""
    pieces = {token: tokenizer.decode_bytes([token]) for token in set(ids)}
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
    firsts: list[int] = []
    texts: list[str] = []
    is_open = False
    for place, token in enumerate(ids):
        if not is_open:
            firsts.append(place)
            texts.append("")
        texts[-1] += utf8.decode(pieces[token], final=place == len(ids) - 1)
        is_open = utf8.getstate()[0] != b""
    return firsts, tuple(texts)


def _plain(loss: float) -> float | str:
    """JSON has no infinite numbers."""
    return round(loss, 5) if math.isfinite(loss) else str(loss)


def tokens_json(models: Sequence[str], data: str, documents: Sequence[DocumentTokens]) -> str:
    """One JSON object: `documents`, each with its tokens. models: one name, or two where they are side by side."""
    tree = {
        "model": models[0],
        **({"against": models[1]} if len(models) > 1 else {}),
        "data": data,
        "documents": [document.to_dict() for document in documents],
    }
    return json.dumps(tree, ensure_ascii=False) + "\n"
