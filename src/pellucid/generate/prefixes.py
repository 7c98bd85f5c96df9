"""What a model has read of texts, kept for the next text that begins alike: a store of limited size.

A system prompt, or what was said so far, is then read once. What a causal decoder keeps of an id depends only on that
id and those before it, so a beginning that was read in one text is the same in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pellucid.model.cache import Prefix
from pellucid.model.interface import LanguageModel

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Entry:
    ids: Ids
    prefix: Prefix


class Prefixes:
    """Beginnings that one model has read into a cache of one dtype; the longest unused is forgotten first.

    max_bytes: of all keys and values kept. A beginning of fewer than min_length ids is not worth the copy.
    What `find` returned lives as long as it is held, also when the store has forgotten it.
    """

    def __init__(self, max_bytes: int, *, min_length: int = 16) -> None:
        if max_bytes < 0 or min_length < 1:
            raise ValueError(
                f"max_bytes ({max_bytes}) must be at least 0 and min_length ({min_length}) at least 1"
            )
        self.max_bytes, self.min_length = max_bytes, min_length
        self._entries: list[_Entry] = []  # the longest unused first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Of all keys and values kept."""
        return sum(entry.prefix.bytes for entry in self._entries)

    def find(self, ids: Sequence[int]) -> Prefix | None:
        """What was read of the longest known beginning of `ids`, shorter than they are; None: nothing worth it.

        For several prompts that share n ids, ask for the first n + 1 of one (see `shared_beginning`).
        """
        wanted = np.asarray(ids, dtype=np.int64)
        lengths = [_agreement(entry.ids, wanted[:-1]) for entry in self._entries]
        if max(lengths, default=0) < self.min_length:
            return None
        found = self._entries.pop(int(np.argmax(lengths)))
        self._entries.append(found)
        return found.prefix.first(max(lengths))

    def add(self, ids: Sequence[int], prefix: Prefix) -> None:
        """Keep what was read of `ids`, the first of a row that has forgotten none.

        A beginning of what is known adds nothing, and takes the place of its own beginnings. One that is shorter
        than min_length, or larger than the store, is left out. Raises ValueError where ids and prefix differ in length.
        """
        if len(ids) != prefix.length:
            raise ValueError(
                f"{len(ids)} ids were given with what was read of {prefix.length}; give those of the same"
            )
        if prefix.length < self.min_length or prefix.bytes > self.max_bytes:
            return
        new = np.asarray(ids, dtype=np.int64)
        for entry in self._entries:
            if _agreement(entry.ids, new) == len(new):
                self._entries.remove(entry)
                self._entries.append(entry)
                return
        kept = [entry for entry in self._entries if _agreement(entry.ids, new) < len(entry.ids)]
        self._entries = [*kept, _Entry(new, Prefix(_alone(prefix.keys), _alone(prefix.values)))]
        while self.bytes > self.max_bytes:
            del self._entries[0]


def has_beginnings(model: LanguageModel) -> bool:
    """Whether what the model reads of a beginning is the same whatever follows.

    Not so in an encoder-decoder, whose prompt is its source, nor where a prompt is seen in both directions.
    """
    return model.continues_prompt and getattr(model.config, "prompt_mask", None) != "prefix"


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids all prompts begin with; fewer than each has, so that something of each is left to read."""
    if not prompts:
        return 0
    first, *others = (np.asarray(prompt[:-1], dtype=np.int64) for prompt in prompts)
    return min((_agreement(first, other) for other in others), default=len(first))


def _agreement(a: Ids, b: Ids) -> int:
    """How many ids both begin with."""
    both = min(len(a), len(b))
    differs = np.flatnonzero(a[:both] != b[:both])
    return int(differs[0]) if len(differs) else both


def _alone(tensor: Tensor) -> Tensor:
    """The tensor, copied where it is a part of a larger one, which would be kept with it."""
    is_part = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if is_part else tensor
