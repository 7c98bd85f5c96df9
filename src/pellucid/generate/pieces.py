"""Ids → pieces of text as they come: never half a character, never the beginning of what may be a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from pellucid.tokenizers.base import Tokenizer


class Pieces:
    """The text of one row. A character whose bytes come as several ids is held back until it is whole, and so is a
    text that a stop text may begin with; bytes that are no UTF-8 become U+FFFD. The stop text that is whole first, of
    several the longest, is left out with what comes after it, however ids cut the text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._shown: list[str] = []
        self.is_stopped = False
        """Whether a stop text has come."""

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._shown)

    def push(self, new: int) -> str:
        """The text that can be shown now that this id has come; often none."""
        return self._show(self._utf8.decode(self._tokenizer.decode_bytes([new])))

    def flush(self) -> str:
        """What was held back and can be shown now that nothing more comes."""
        rest = self._show(self._utf8.decode(b"", final=True)) + ("" if self.is_stopped else self._held)
        if not self.is_stopped and self._held:
            self._shown.append(self._held)
        self._held = ""
        return rest

    def _show(self, new: str) -> str:
        if self.is_stopped:
            return ""
        self._held += new
        found = [(place + len(s), place) for s in self._stops if (place := self._held.find(s)) >= 0]
        if found:
            self.is_stopped = True
            _, end = min(found)
        else:
            end = len(self._held) - self._may_begin_a_stop()
        piece, self._held = self._held[:end], self._held[end:]
        if piece:
            self._shown.append(piece)
        return piece

    def _may_begin_a_stop(self) -> int:
        """How many of the last characters are the beginning of a stop text."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
