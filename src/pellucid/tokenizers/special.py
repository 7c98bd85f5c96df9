"""Special tokens: strings with an id of their own, which ordinary text can never produce.

A tokenizer has its own (`<|endoftext|>`) and takes added ones (padding, mask sentinels, …), numbered
after its own ids. Where one stands in a text it is ordinary text, unless the caller asks otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from pellucid.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"


def number(own: Mapping[str, int], added: Sequence[str], *, first_id: int) -> dict[str, int]:
    """Every special token with its id: the tokenizer's own, then the added ones from `first_id` on.

    Raises TokenizerError for a token that is empty, comes twice, or is no valid text.
    """
    ids = dict(own)
    for token in added:
        if not token:
            raise TokenizerError("a special token is empty; every special token needs at least one character")
        if token in ids:
            whose = "one of the tokenizer's own" if token in own else "named twice"
            raise TokenizerError(
                f"the added special token {token!r} is {whose}; name each special token once"
            )
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise TokenizerError(
                f"the special token {token!r} holds half of a surrogate pair and has no bytes"
            )
        ids[token] = first_id + len(ids) - len(own)
    return ids


def pattern(tokens: Mapping[str, int]) -> re.Pattern[str]:
    """A regular expression that finds special tokens, the longest first where several begin together."""
    choices = [re.escape(token) for token in sorted(tokens, key=len, reverse=True)]
    return re.compile("|".join(choices) or "(?!)")  # without any, it finds nothing


def split(text: str, special: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
    """Cut a text at its special tokens: (where the ordinary part starts, ordinary part, special token).

    The last part has no special token after it: an empty string.
    """
    start = 0
    for found in special.finditer(text):
        yield start, text[start : found.start()], found[0]
        start = found.end()
    yield start, text[start:], ""


def _checked(added: tuple[str, ...]) -> tuple[str, ...]:
    try:
        number({}, added, first_id=0)
    except TokenizerError as error:
        raise ValueError(str(error)) from None
    return added


AddedSpecialTokens = Annotated[
    tuple[str, ...],
    AfterValidator(_checked),
    Field(description="Special tokens added after the tokenizer's own ids, in this order: padding, masks, …"),
]
"""The config field `special_tokens`, the same for every kind of tokenizer."""
