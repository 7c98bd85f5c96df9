"""Where words for people go: standard error, so that standard output holds results alone."""

from rich.console import Console


def message_console() -> Console:
    """Plain words: long lines are not cut, and brackets in a path are not taken for markup."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
