"""A hub of data sets on loopback, as far as the real `huggingface_hub` client asks one, which can be made to fail.

It answers /api/datasets/OWNER/NAME[/revision/R], /api/datasets/…/tree/R[/FOLDER], /api/datasets/…/paths-info/R and
/datasets/OWNER/NAME/resolve/R/PATH with ranges. Parquet files are redirected to /cdn, as the hub does with large ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]
"""Paths and contents of one commit."""

KINDS = (
    "cut",
    "cut",
    "no answer",
    "status 429",
    "status 500",
    "status 503",
    "short",
    "long",
    "whole",
    "page",
    "stall",
)


@dataclass
class Faults:
    """Which requests fail, and how: drawn from a seed, request by request.

    cut: the connection breaks at a random byte of the body. no answer: it breaks before the status line. short and
    long: the Content-Length is right for the body, and the body wrong for the range. whole: the range is passed over.
    page: status 200 with a page in HTML, as of a login in a hotel. stall: nothing comes for `stall_s`.
    """

    seed: int
    share: float = 0.4
    most_in_a_row: int = 3
    kinds: tuple[str, ...] = KINDS
    retry_after_s: int = 0
    stall_s: float = 1.0
    most_stalls: int = 1
    cut_at: int | None = None
    """Cut a body after so many bytes, and not at random."""
    only: str = ""
    """A pattern of the paths that fail."""
    happened: Counter[str] = field(default_factory=Counter[str])
    _in_a_row: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def draw(self, path: str) -> str | None:
        """What happens to the next request; None: nothing. A redirection that gets through ends no row of faults."""
        if not re.search(self.only, path):
            return None
        kind = self.random.choice(self.kinds) if self.random.random() < self.share else None
        if kind == "stall" and self.happened["stall"] >= self.most_stalls:
            kind = "cut"
        if kind is None or self._in_a_row >= self.most_in_a_row:
            self._in_a_row *= path.endswith(".parquet")
            return None
        self._in_a_row += 1
        self.happened[kind] += 1
        return kind


@dataclass(frozen=True)
class Request:
    """One that came, whether it was answered well or not."""

    method: str
    path: str
    range: str | None
    fault: str | None
    token: str | None


class HubServer:
    """A context manager that serves repositories; the key of one may be OWNER/NAME@BRANCH, else its branch is main.

    refused: repositories that answer `gated` (403) or `private` (401). page_size: entries of a tree in one answer.
    """

    def __init__(
        self,
        repositories: Mapping[str, Files],
        *,
        faults: Faults | None = None,
        refused: Mapping[str, str] | None = None,
        page_size: int = 1000,
    ) -> None:
        self.faults, self.refused, self.page_size = faults, dict(refused or {}), page_size
        self.requests: list[Request] = []
        self.gone_after: int | None = None
        """After so many requests from now on every connection breaks, until it is None again."""
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._commits: dict[tuple[str, str], Files] = {}
        self._branches: dict[tuple[str, str], str] = {}
        self._blobs: dict[str, bytes] = {}
        for name, files in repositories.items():
            self.commit(name, files)
        self._server: _Server | None = None
        self._port = 0

    def commit(self, name: str, files: Files) -> str:
        """Put a new commit on a branch; the older ones stay. Returns its id."""
        repository, _, branch = name.partition("@")
        digest = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        self._commits[repository, digest] = dict(files)
        self._blobs |= {_sha256(data): data for data in files.values()}
        self._branches[repository, branch or "main"] = digest
        return digest

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def count(self, pattern: str = "") -> int:
        """How many requests came whose path has a match of the pattern."""
        return sum(bool(re.search(pattern, request.path)) for request in self.requests)

    def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self.released.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.hub = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: connections are refused, and open ones broken."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.break_connections()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def resolve(self, repository: str, revision: str) -> str | None:
        if (repository, revision) in self._commits:
            return revision
        return self._branches.get((repository, revision))

    def knows(self, repository: str) -> bool:
        return any(name == repository for name, _ in self._commits)

    def files(self, repository: str, commit: str) -> Files:
        return self._commits[repository, commit]

    def blob(self, sha256: str) -> bytes | None:
        return self._blobs.get(sha256)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    hub: HubServer

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _missing: ClassVar = {
        "RepoNotFound": "Repository not found",
        "RevisionNotFound": "Invalid rev id",
        "EntryNotFound": "Entry not found",
    }

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server.hub, urlsplit(self.path).path
        with hub.lock:
            self.fault = hub.faults.draw(path) if hub.faults else None
            if hub.gone_after is not None:
                self.fault = "no answer" if hub.gone_after <= 0 else self.fault
                hub.gone_after -= 1
            asked = self.headers.get("Range")
            token = self.headers.get("Authorization")
            hub.requests.append(Request(self.command, path, asked, self.fault, token))
        if self.fault == "no answer":
            self._break()
        elif self.fault == "stall":
            hub.released.wait(hub.faults.stall_s if hub.faults else 0)
            self._break()
        elif self.fault == "page":
            self._send(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})
        elif self.fault is not None and self.fault.startswith("status"):
            status = int(self.fault.split()[1])
            wait = {"Retry-After": str(hub.faults.retry_after_s)} if hub.faults and status == 429 else {}
            self._send(status, b"Bad luck", wait)
        elif blob := re.fullmatch(r"/cdn/(\w+)", path):
            self._send_file(hub.blob(blob[1]) or b"", {})
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            self._api(unquote(found[1]), found[2], found[3] or "main", body)
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(unquote(found[1]), unquote(found[2]), unquote(found[3]))
        else:
            self._send(404, b"")

    def _api(self, repository: str, what: str | None, rest: str, body: bytes) -> None:
        if what == "revision" or what is None:
            rest = rest.replace("/", "%2F")
        revision, _, folder = rest.partition("/")
        commit = self._commit(repository, unquote(revision))
        if commit is None:
            return
        files = self.server.hub.files(repository, commit)
        if what == "tree":
            self._tree(files, unquote(folder).strip("/"))
        elif what == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", [])
            self._json([_entry(path, files[path]) for path in wanted if path in files])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": repository, "sha": commit, "private": False, "siblings": siblings})

    def _tree(self, files: Files, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in sorted(files.items()) if path.startswith(prefix)}
        if not inside:
            self._refuse(404, "EntryNotFound")
            return
        asked = parse_qs(urlsplit(self.path).query)
        is_recursive = asked.get("recursive", ["false"])[0].lower() == "true"
        folders = {
            path[: slash.start()]
            for path in inside
            for slash in re.finditer("/", path)
            if slash.start() >= len(prefix)
        }
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)
        ]
        entries += [_entry(path, data) for path, data in inside.items()]
        if not is_recursive:
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        first, size = int(asked.get("cursor", ["0"])[0]), self.server.hub.page_size
        headers: dict[str, str] = {}
        if first + size < len(entries):
            address = self.server.hub.endpoint + urlsplit(self.path).path
            query = f"recursive={str(is_recursive).lower()}&cursor={first + size}"
            headers["Link"] = f'<{address}?{query}>; rel="next"'
        self._json(entries[first : first + size], headers)

    def _resolve(self, repository: str, revision: str, path: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        files = self.server.hub.files(repository, commit)
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_id(data)}"'}
        if not path.endswith(".parquet"):
            self._send_file(data, headers)
            return
        digest = _sha256(data)
        headers |= {
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": f'"{digest}"',
            "Location": f"{self.server.hub.endpoint}/cdn/{digest}",
        }
        self._send(302, b"", headers)

    def _commit(self, repository: str, revision: str) -> str | None:
        """The commit of a revision; None where a refusal was sent instead."""
        hub = self.server.hub
        refusal = hub.refused.get(repository)
        commit = hub.resolve(repository, revision)
        if refusal == "gated":
            self._refuse(403, "GatedRepo")
        elif refusal == "forbidden":
            self._refuse(403, None)
        elif refusal is not None or not hub.knows(repository):
            self._refuse(401, "RepoNotFound")  # the hub says so of what is missing, and of what is private
        elif commit is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return commit
        return None

    def _refuse(self, status: int, code: str | None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers["X-Error-Message"] = self._missing.get(code or "", "Access is restricted")
        self._json({"error": headers["X-Error-Message"]}, headers, status)

    def _json(self, value: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _send_file(self, data: bytes, headers: Mapping[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if asked is None or self.fault == "whole":
            self._send(200, data, headers)
            return
        first = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
        stop = min(int(asked[2]) + 1 if asked[1] and asked[2] else len(data), len(data))
        if first >= stop:
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[first:stop]
        headers = {**headers, "Content-Range": f"bytes {first}-{stop - 1}/{len(data)}"}
        if self.fault == "short" and self.server.hub.faults:
            body = body[: self.server.hub.faults.random.randrange(len(body))]
        if self.fault == "long":
            body += b"\0" * 7
        self._send(206, body, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        faults = self.server.hub.faults
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault == "cut" and faults:
            at = faults.random.randrange(len(body) + 1) if faults.cut_at is None else faults.cut_at
            self.wfile.write(body[:at])
            self._break()
        else:
            self.wfile.write(body)

    def _break(self) -> None:
        """Reset the connection, as a network that fails does."""
        self.close_connection = True
        self.wfile.flush()
        if self.fault != "cut":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """As a tree lists a file; Parquet files are kept in LFS, and have a SHA-256."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _git_id(data)}
    if path.endswith(".parquet"):
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return entry


@lru_cache(maxsize=256)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=256)
def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
