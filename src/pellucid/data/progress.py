"""How far a preparation has come, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pellucid.data.assembly import Assembler


@dataclass(frozen=True)
class Progress:
    """Counts of everything done, and of what this process has done of it."""

    source_bytes: int
    """Of the source as it is stored."""
    total_bytes: int
    documents: int
    tokens: int
    text_bytes: int
    """UTF-8 bytes of the text."""
    seconds: float
    """Since this process began."""
    source_bytes_here: int
    """Since this process began, like the two below: one that goes on where another was has more in all."""
    documents_here: int
    text_bytes_here: int

    @property
    def share(self) -> float:
        return min(1.0, self.source_bytes / max(self.total_bytes, 1))

    @property
    def seconds_left(self) -> float | None:
        """Where the rest goes as fast as what was done; None before anything was."""
        if not self.source_bytes_here:
            return None
        return self.seconds * max(0, self.total_bytes - self.source_bytes) / self.source_bytes_here

    @property
    def documents_per_s(self) -> float:
        return self.documents_here / max(self.seconds, 1e-9)

    @property
    def text_bytes_per_s(self) -> float:
        return self.text_bytes_here / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        left = self.seconds_left
        return (
            f"{self.share:.0%}: {self.documents:,} documents, {self.text_bytes / 1e6:,.1f} MB, {self.tokens:,} "
            f"tokens ({self.documents_per_s:,.0f} documents/s, {self.text_bytes_per_s / 1e6:,.1f} MB/s"
            + (f", {left:,.0f} s left)" if left is not None and self.share < 1 else ")")
        )


Report = Callable[[Progress], None]
"""Called after every block."""


class Clock:
    """What a preparation in this process is timed by."""

    def __init__(self, assembler: Assembler, total_bytes: int) -> None:
        self._assembler, self._total_bytes = assembler, total_bytes
        self._began = self._saved = time.monotonic()
        self._source_bytes = assembler.source_bytes
        self._documents, self._text_bytes = assembler.documents, assembler.text_bytes

    @property
    def since_saved_s(self) -> float:
        return time.monotonic() - self._saved

    def saved(self) -> None:
        """The assembler was saved."""
        self._saved = time.monotonic()

    def progress(self) -> Progress:
        now = self._assembler
        return Progress(
            source_bytes=now.source_bytes,
            total_bytes=self._total_bytes,
            documents=now.documents,
            tokens=now.tokens,
            text_bytes=now.text_bytes,
            seconds=time.monotonic() - self._began,
            source_bytes_here=now.source_bytes - self._source_bytes,
            documents_here=now.documents - self._documents,
            text_bytes_here=now.text_bytes - self._text_bytes,
        )
