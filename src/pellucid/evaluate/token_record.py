"""Which tokens of a text are hard for a model, as values and as JSON. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class DocumentTokens:
    """Every token of a document with its loss."""

    where: str
    """The file, and the line or row where it holds several documents."""
    domain: str
    ids: NDArray[np.uint32]
    texts: tuple[str, ...]
    """Of each id; U+FFFD where a token ends inside a character."""
    starts: NDArray[np.int64]
    """The byte of the document's text at which each token begins."""
    losses: NDArray[np.float32]
    """-log p of each in nats; not a number for a first token that had nothing before it."""
    against: NDArray[np.float32] | None = None
    """The same of another model."""

    def beside(self, other: DocumentTokens) -> DocumentTokens:
        """With the losses of another model on the same ids. Raises DataError for other ones."""
        if not np.array_equal(self.ids, other.ids):
            raise DataError(
                f"{self.where}: the models cut it into different tokens; compare bits per byte instead"
            )
        return replace(self, against=other.losses)

    def to_dict(self) -> dict[str, Any]:
        columns = {"nats": self.losses, **({} if self.against is None else {"nats_against": self.against})}
        names = ("text", "id", "byte", *columns)
        values = (
            [None if np.isnan(x) else round(float(x), 5) for x in column] for column in columns.values()
        )
        rows = zip(self.texts, self.ids.tolist(), self.starts.tolist(), *values, strict=True)
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
    """The losses of the last ids of a document, with what each id says."""
    known = {token: tokenizer.decode([token]) for token in np.unique(ids).tolist()}
    unscored = np.full(len(ids) - len(losses), np.nan, dtype=np.float32)
    texts = tuple(known[token] for token in ids.tolist())
    return DocumentTokens(where, domain, ids, texts, starts[:-1], np.concatenate([unscored, losses]))


def tokens_json(models: Sequence[str], data: str, documents: Sequence[DocumentTokens]) -> str:
    """One JSON object: `documents`, each with its tokens. models: one name, or two where they are side by side."""
    tree = {
        "model": models[0],
        **({"against": models[1]} if len(models) > 1 else {}),
        "data": data,
        "documents": [document.to_dict() for document in documents],
    }
    return json.dumps(tree, ensure_ascii=False) + "\n"
