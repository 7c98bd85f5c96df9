"""Files of a hub, read by ranges of bytes over a network that may fail.

The requests are made with the session, headers and errors of `huggingface_hub`, and not through its HfFileSystem:
that one tries again by itself, up to 23 s and with no word on it, takes a short answer for the whole one, and lists
a tree without a time limit. Here one place decides what is tried again, `patiently`.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from pellucid.errors import DataError
from pellucid.runtime.hub import client, endpoint, requests

T = TypeVar("T")

_GOLDEN = (math.sqrt(5) - 1) / 2
_BUSY = frozenset({408, 425, 429})
_LONGEST_REQUESTED_WAIT_S = 600.0
_PROGRESS_BYTES = 1 << 16
"""So many new bytes between two faults are progress: the faults are counted from one again."""

TAIL_BYTES = 1 << 16
"""Of a Parquet file: fetched first, and kept, with what is missing of the footer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long faults of the network are borne: connections that break, time that runs out, status 429 and 5xx."""

    tries: int = 8
    """In a row, of one request."""
    first_tries: int = 3
    """Of the first request of all: without a network, say so soon."""
    first_wait_s: float = 0.5
    """Before the second try; twice as long before each one after it, less up to a half."""
    longest_wait_s: float = 30.0
    connect_s: float = 5.0
    timeout_s: float = 20.0
    """Without a byte."""

    @property
    def timeouts(self) -> tuple[float, float, float, float]:
        """To connect, to read, to write, and to get a connection."""
        return (min(self.connect_s, self.timeout_s), self.timeout_s, self.timeout_s, self.timeout_s)

    def wait_s(self, faults: int) -> float:
        """How long to wait after so many faults in a row: a different time in each process."""
        share = (os.getpid() + faults) * _GOLDEN % 1
        return min(self.longest_wait_s, self.first_wait_s * 2 ** (faults - 1)) * (1 - share / 2)


PATIENCE = Patience()


class Fault(Exception):  # noqa: N818  (no error until patience ends)
    """The network or the server failed in a way that may pass."""

    def __init__(self, said: str, wait_s: float = 0.0, *, is_answer: bool = True) -> None:
        super().__init__(said)
        self.wait_s = wait_s
        """How long the server asks one to wait."""
        self.is_answer = is_answer


def get(url: str, patience: Patience, *, headers: dict[str, str] | None = None) -> Any:
    """The client's response to one request, of status 2xx; else it raises."""
    utils = client().utils
    response = utils.get_session().get(
        url, headers=utils.build_hf_headers() | (headers or {}), timeout=patience.timeouts
    )
    utils.hf_raise_for_status(response)
    return response


def patiently(
    what: str,
    attempt: Callable[[], T],
    patience: Patience,
    *,
    progress: Callable[[], int] = lambda: 0,
    is_first: bool = False,
) -> T:
    """The result of an attempt that can be made again, after as many faults as patience bears.

    progress: the bytes there are so far. is_first: nothing has been heard from the hub yet.
    Raises DataError, beginning with `what`, when patience ends, and at once for what waiting does not mend.
    """
    begun, faults, before = time.monotonic(), 0, 0
    while True:
        try:
            return attempt()
        except Exception as error:
            fault = error if isinstance(error, Fault) else _fault_of(error, what)
        faults = 1 if progress() - before >= _PROGRESS_BYTES else faults + 1
        before = progress()
        is_silent = is_first and not fault.is_answer
        if faults >= (patience.first_tries if is_silent else patience.tries):
            past = (
                f"after {faults} tries in {time.monotonic() - begun:.1f} s, the last of which said: {fault}"
            )
            if is_silent:
                raise DataError(f"{what}: no answer from {urlsplit(endpoint()).netloc} {past}. {_WITHOUT}")
            raise DataError(
                f"{what}: cannot be read, {past}. Nothing that is finished is lost: when the network is back, the "
                "same command goes on from there"
            )
        if fault.wait_s > _LONGEST_REQUESTED_WAIT_S:
            raise DataError(
                f"{what}: the hub asks to be left alone for {fault.wait_s:,.0f} s ({fault}). Nothing that is finished "
                "is lost: the same command goes on from there later"
            )
        wait_s = max(fault.wait_s, patience.wait_s(faults))
        _log.log(
            logging.WARNING if faults > 2 or wait_s >= 5 else logging.DEBUG,
            "%s: %s; trying again in %.1f s",
            what,
            fault,
            wait_s,
        )
        time.sleep(wait_s)


_WITHOUT = (
    "Without a network, name local files: where there is one, `hf download OWNER/NAME --repo-type dataset --local-dir "
    "DIR` fetches the data set; then give its folder of .parquet files as the path"
)


def _fault_of(error: Exception, what: str) -> Fault:
    """The fault behind an error of the client. Raises DataError for what waiting does not mend."""
    errors = client().errors
    httpx = requests()
    if isinstance(error, errors.OfflineModeIsEnabled):
        raise DataError(f"{what}: the hub is not asked, since HF_HUB_OFFLINE is set. {_WITHOUT}") from None
    if isinstance(error, httpx.RequestError) and not isinstance(error, httpx.UnsupportedProtocol):
        said = " ".join(str(error).split()).rstrip(".") or "no more than that"
        return Fault(f"{type(error).__name__}: {said}", is_answer=isinstance(error, httpx.ProtocolError))
    if not isinstance(error, (errors.HfHubHTTPError, errors.HFValidationError)):
        raise error
    response: Any = getattr(error, "response", None)  # a name that is not valid has none
    status = int(getattr(response, "status_code", 0))
    if status in _BUSY or status >= 500:
        return Fault(f"status {status}", _requested_wait_s(response.headers))
    raise DataError(f"{what}: {_refusal(error, status)}") from None


def _refusal(error: Exception, status: int) -> str:
    errors = client().errors
    if isinstance(error, errors.GatedRepoError):
        return f"the data set is gated (status {status}): ask for access on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the data set has no such revision (status {status}): name a branch, a tag or a commit of it behind @"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub knows no such data set (status {status}): is the name right? If it is private, log in with "
            "`hf auth login`"
        )
    if status in {401, 403}:
        return f"the hub refuses it (status {status}); log in with `hf auth login`, to an account that may read it"
    if status == 404:
        return "the hub has no such file (status 404): is the name right?"
    return f"the hub refuses it: {' '.join(str(error).split())}"


def _requested_wait_s(headers: Any) -> float:
    asked = str(headers.get("Retry-After", "")).strip()
    if asked.isdigit():
        return float(asked)
    limit = client().utils.parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of one commit of a repository: its bytes never change."""

    url: str
    name: str
    where: str
    size_bytes: int
    hash: str
    """SHA-256 of its bytes as hex, from the hub's listing; `git:` and the blob's id where that has none."""
    patience: Patience

    def open(self) -> BinaryIO:
        return cast(BinaryIO, _Ranges(self))

    def sha256(self) -> str:
        return self.hash

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start to stop. Raises DataError when the network has gone for good."""
        data = bytearray()
        what = f"{self.where}, bytes {start:,} to {stop:,}"
        patiently(what, lambda: self._extend(data, start, stop), self.patience, progress=lambda: len(data))
        return bytes(data)

    def _extend(self, data: bytearray, start: int, stop: int) -> None:
        """Read on from where an earlier attempt broke off; what came is kept when this one breaks, too."""
        utils = client().utils
        begin = start + len(data)
        if begin >= stop:
            return
        headers = utils.build_hf_headers() | {
            "Range": f"bytes={begin}-{stop - 1}",
            "Accept-Encoding": "identity",  # the range of a compressed answer would be of other bytes
        }
        session, timeouts = utils.get_session(), self.patience.timeouts
        with session.stream("GET", self.url, headers=headers, timeout=timeouts) as response:
            utils.hf_raise_for_status(response)
            answered = re.sub(r"/\*$", f"/{self.size_bytes}", response.headers.get("Content-Range", ""))
            wanted = f"bytes {begin}-{stop - 1}/{self.size_bytes}"
            if response.status_code != 206 or answered != wanted:
                raise Fault(f"wanted {wanted}, the answer was {answered or f'status {response.status_code}'}")
            for chunk in response.iter_bytes():
                data += chunk
        if len(data) > stop - start:
            data.clear()
            raise Fault(f"wanted {stop - begin:,} bytes, and more came")
        if len(data) < stop - start:
            raise Fault(f"wanted {stop - start:,} bytes, and {len(data):,} came")


@lru_cache(maxsize=32)
def _tail(file: RemoteFile) -> bytes:
    """The end of a file: its last TAIL_BYTES, or a Parquet footer that is longer."""
    size = file.size_bytes
    tail = file.read(max(0, size - TAIL_BYTES), size)
    footer = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
    missing = min(footer, size) - len(tail)
    return file.read(size - len(tail) - missing, size - len(tail)) + tail if missing > 0 else tail


class _Ranges(io.RawIOBase):
    """A remote file from any position: a read is one request, and the file's end is fetched once a process."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {0: 0, 1: self._position, 2: self._file.size_bytes}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._file.size_bytes
        start = min(self._position, end)
        stop = end if size < 0 else min(start + size, end)
        self._position = stop
        tail = _tail(self._file)
        first = end - len(tail)
        if start >= first:
            return tail[start - first : stop - first]
        kept = tail[: max(0, stop - first)]
        return self._file.read(start, min(stop, first)) + kept

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
