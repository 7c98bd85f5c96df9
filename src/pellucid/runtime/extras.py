"""Optional libraries: imported where they are used, with one line on how to get them where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from pellucid.errors import MissingLibraryError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import a library of an optional extra. Raises MissingLibraryError saying what to install, and for what."""
    try:
        loaded: ModuleType = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the library is there, and misses something of its own
        name = module.partition(".")[0]
        raise MissingLibraryError(
            f"{purpose} needs the library {name}, which is not installed: pip install 'pellucid[{extra}]'"
        ) from None
    return loaded
