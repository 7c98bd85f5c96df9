"""Which libraries are here, and what to type for those that are not. Read from the package's own metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

_EXTRAS = ("data", "cluster", "export")
"""For users; the others are for work on the project."""
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[.*?\])?[^;]*(?:;.*extra == ['\"](\w+)['\"])?")


@dataclass(frozen=True)
class Library:
    name: str
    version: str | None
    """None where it is not installed."""
    extra: str | None
    """The optional extra that it belongs to."""

    @property
    def hint(self) -> str | None:
        """What to type where it is missing."""
        return f"pip install 'pellucid[{self.extra}]'" if self.version is None and self.extra else None


def libraries() -> tuple[Library, ...]:
    """Those that the package always needs, then those of its extras."""
    found: dict[str, Library] = {}
    for line in requires("pellucid") or ():
        match = _REQUIREMENT.match(line)
        assert match is not None
        name, extra = match.group(1), match.group(2)
        if name == "pellucid" or not (extra is None or extra in _EXTRAS):
            continue
        if name in found and extra in ("cluster", "export"):  # which contain the extra `data`
            continue
        found[name] = Library(name, _version(name), extra)
    order = (None, *_EXTRAS)
    return tuple(sorted(found.values(), key=lambda library: (order.index(library.extra), library.name)))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
