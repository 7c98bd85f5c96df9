"""Several prepared directories as one source of training windows, in exact proportions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import gcd, lcm
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pellucid.config import Config
from pellucid.data.manifest import TokenizerRecord, sha256_json
from pellucid.data.order import Order, Window
from pellucid.data.shards import ShardSet, Split
from pellucid.errors import ConfigError, DataError

_LONGEST_PERIOD = 100_000


class MixtureMember(Config):
    """One part of a mixture."""

    path: str
    """As data.path: raw text, which is prepared into the cache, or a prepared directory."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the training windows, relative to the other members' weights."""


class MixtureOrder:
    """Takes the windows of a training step from several orders, in the proportions of their weights.

    The members take turns in a fixed pattern that repeats as soon as the proportions are exact (weights 0.7 and
    0.3: after 10 windows); inside it the member that lags behind its share the most is next, so after any number
    of windows none is a whole window away from its share. A member whose windows are used up begins its next epoch,
    whatever the others do. All of it is a pure function of the window's number.

    first_shards: the number that each member's first shard (of packed rows: section) has among those of all. An
    epoch of the mixture has as many windows as the members' epochs together, or tokens_per_epoch.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        weights: Sequence[float],
        *,
        first_shards: Sequence[int],
        windows_per_epoch: int | None = None,
    ) -> None:
        self._orders, self._first_shards = tuple(orders), tuple(first_shards)
        self.seq_len = orders[0].seq_len
        self.shard_tokens: Sequence[int] = tuple(tokens for order in orders for tokens in order.shard_tokens)
        everything = sum(order.windows_per_epoch for order in orders)
        self.windows_per_epoch = everything if windows_per_epoch is None else windows_per_epoch
        self._turns = _turns(_whole_numbers(weights))
        period = len(self._turns)
        self._taken = np.zeros((period + 1, len(orders)), dtype=np.int64)
        """How many windows each member gives in the first n of a period."""
        self._taken[np.arange(1, period + 1), self._turns] = 1
        self._taken = self._taken.cumsum(axis=0)

    def locate(self, number: int) -> Window:
        """The window with this number: which member gives it, and which of that member's windows it is."""
        period, place = divmod(number, len(self._turns))
        member = int(self._turns[place])
        own_number = period * int(self._taken[-1, member]) + int(self._taken[place, member])
        window = self._orders[member].locate(own_number)
        return window._replace(number=number, shard=window.shard + self._first_shards[member])

    def step(self, step: int, batch_windows: int, *, rank: int = 0, world: int = 1) -> list[Window]:
        first = step * batch_windows
        return [self.locate(number) for number in range(first + rank, first + batch_windows, world)]

    def upcoming(self, number: int) -> tuple[list[int], list[int]]:
        return [], []  # all members are prepared


class Mixture:
    """Prepared directories with one tokenizer, as one set of shards."""

    def __init__(self, members: Sequence[ShardSet], weights: Sequence[float]) -> None:
        """Raises DataError when they were not prepared with the same tokenizer, or one of them holds pairs."""
        first = members[0].manifest
        for member in members:
            found = member.manifest
            if found.tokenizer.fingerprint != first.tokenizer.fingerprint:
                raise DataError(
                    f"{member.directory}: was prepared with tokenizer {found.tokenizer.kind} "
                    f"({found.tokenizer.fingerprint[:12]}), and {members[0].directory} with {first.tokenizer.kind} "
                    f"({first.tokenizer.fingerprint[:12]}); a mixture needs one tokenizer: prepare them alike"
                )
            if found.source.pair_fields is not None:
                raise DataError(
                    f"{member.directory}: holds pairs, and a mixture is made of texts; name texts alone"
                )
        self.members, self.weights = tuple(members), tuple(weights)
        self.train = _joined("train", [member.train for member in members])
        self.val = _joined("val", [member.val for member in members])

    @property
    def directory(self) -> Path:
        """Of the first member, whose tokenizer is that of all."""
        return self.members[0].directory

    @property
    def tokenizer_directory(self) -> Path:
        return self.members[0].tokenizer_directory

    @property
    def tokenizer(self) -> TokenizerRecord:
        return self.members[0].tokenizer

    @property
    def passport(self) -> dict[str, Any]:
        named = [f"{number}: {member.name}" for number, member in enumerate(self.members)]
        return {
            "mixture": {
                name: {"weight": weight, **member.passport}
                for name, member, weight in zip(named, self.members, self.weights, strict=True)
            }
        }

    @property
    def name(self) -> str:
        return " + ".join(member.name for member in self.members)

    @property
    def fingerprint(self) -> str:
        """What determines the ids and their order."""
        return sha256_json([[m.fingerprint, str(w)] for m, w in zip(self.members, self.weights, strict=True)])

    def verify(self) -> None:
        for member in self.members:
            member.verify()

    def close(self) -> None:
        for member in self.members:
            member.close()

    def order(self, orders: Sequence[Order], windows_per_epoch: int | None) -> MixtureOrder:
        """The order of training, given each member's own."""
        counts = [len(order.shard_tokens) for order in orders]
        first_shards = [0, *accumulate(counts[:-1])]
        return MixtureOrder(
            orders, self.weights, first_shards=first_shards, windows_per_epoch=windows_per_epoch
        )


def _joined(name: str, splits: Sequence[Split]) -> Split:
    return Split(
        name,
        shards=tuple(shard for split in splits for shard in split.shards),
        starts=tuple(starts for split in splits for starts in split.starts),
        text_bytes=sum(split.text_bytes for split in splits),
        parts=tuple(splits),
    )


def _whole_numbers(weights: Sequence[float]) -> list[int]:
    """The weights in lowest terms: [0.7, 0.3] → [7, 3]."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = gcd(*whole)
    whole = [count // divisor for count in whole]
    if sum(whole) > _LONGEST_PERIOD:
        raise ConfigError(
            f"data.mixture: the weights {', '.join(map(str, weights))} are exact only after {sum(whole):,} windows; "
            "round them to fewer digits"
        )
    return whole


def _turns(counts: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A member for each place of a period: always the one that is furthest behind its share; the first of equals."""
    wanted, period = np.array(counts, dtype=np.int64), sum(counts)
    given = np.zeros_like(wanted)
    turns = np.empty(period, dtype=np.int64)
    for place in range(period):
        turns[place] = member = int(np.argmax(wanted * (place + 1) - given * period))
        given[member] += 1
    return turns
