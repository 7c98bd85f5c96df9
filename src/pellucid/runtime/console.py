"""Where words for people go: standard error, so that standard output holds results alone."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console

_TERMINAL_S, _LOG_S = 0.2, 10.0


def message_console() -> Console:
    """Plain words: long lines are not cut, and brackets in a path are not taken for markup."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def told(console: Console, logger: str) -> Generator[None]:
    """Show what a part of the package logs, at level INFO and above, while the body runs."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(record.getMessage(), style="dim" if record.levelno < logging.WARNING else "yellow")

    log, handler = logging.getLogger(logger), Handler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class StatusLine:
    """How far something has come: one line that is rewritten on a terminal, a new one every ten seconds in a file.

    after_s: seconds before the first line, so that what is done at once says nothing.
    """

    def __init__(self, console: Console, *, after_s: float = 0.0) -> None:
        self._console = console
        self._every = _TERMINAL_S if console.is_terminal else _LOG_S
        self._shown = time.monotonic() - self._every + after_s

    def show(self, text: str) -> None:
        """Show the text, where it is time for one."""
        now = time.monotonic()
        if now - self._shown < self._every:
            return
        self._shown = now
        if self._console.is_terminal:
            self._console.file.write(f"\r\x1b[K{text[: self._console.width - 1]}")
            self._console.file.flush()
        else:
            self._console.print(text)

    def clear(self) -> None:
        """Make room for other words."""
        if self._console.is_terminal:
            self._console.file.write("\r\x1b[K")
