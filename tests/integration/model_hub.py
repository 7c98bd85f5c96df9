"""A hub of models on loopback, as far as the real `huggingface_hub` client asks one: it serves, and it takes pushes.

It answers /api/models/OWNER/NAME[/revision/R] and /OWNER/NAME/resolve/R/PATH; and for a push /api/repos/create,
/api/validate-yaml, …/preupload/R, …/commit/R and the LFS batch of safetensors files (`HF_HUB_DISABLE_XET`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of-the-owner-me"
"""May read everything, and write to repositories of `me`."""


@dataclass
class Repository:
    files: dict[str, bytes]
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The id of the files as they are now, which stay readable by it."""
        digest = hashlib.sha1(repr(sorted(self.files.items())).encode(), usedforsecurity=False).hexdigest()
        self.commits.setdefault(digest, dict(self.files))
        return digest


class ModelHub:
    """A context manager that serves the repositories which are added, by OWNER/NAME."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        """METHOD PATH of each request that came."""
        self.answer_with: tuple[int, bytes] | None = None
        """Status and body of every answer from now on."""
        self.before_commit = lambda: None
        self.stored: dict[str, bytes] = {}
        self.stores = True
        """Whether large files are taken."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self

    def add(self, name: str, files: Repository | Mapping[str, bytes]) -> Repository:
        made = files if isinstance(files, Repository) else Repository(dict(files))
        self.repositories[name] = made
        return made

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self) -> set[str]:
        """The paths of files whose contents were asked for."""
        asked = (re.fullmatch(r"GET /[^/]+/[^/]+/resolve/\w+/(.+)", request) for request in self.requests)
        return {found[1] for found in asked if found}

    def environment(self, home: Path) -> dict[str, str]:
        """For a process that is logged in here, and keeps its cache in `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }

    def log_in(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """The same for this process, in which the client has read most of its environment already."""
        for name in ("HF_ENDPOINT", "HF_TOKEN"):
            monkeypatch.setenv(name, self.environment(home)[name])
        constants = pytest.importorskip("huggingface_hub.constants", reason="needs huggingface_hub")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: ModelHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        path = urlsplit(self.path).path
        self.server.hub.requests.append(f"{self.command} {path}")
        if self.server.hub.answer_with is not None:
            self._send(*self.server.hub.answer_with)
            return
        for pattern, answer in self._routes.items():
            if found := re.fullmatch(pattern, path):
                answer(self, *(None if group is None else unquote(group) for group in found.groups()))
                return
        self._send(404, b"")

    # What is read

    def _info(self, name: str, revision: str | None) -> None:
        found = self._commit(name, revision or "main")
        if found is not None:
            repository, commit = found
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            self._json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._commit(name, revision)
        if found is None:
            return
        repository, commit = found
        data = repository.commits[commit].get(path)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        self._send(200, data, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _commit(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """A repository and a commit of it; None where a refusal was sent instead."""
        repository = self.server.hub.repositories.get(name)
        if repository is None or (repository.private and not self.may_write):
            self._refuse(401, "RepoNotFound")  # the hub says so of what is missing, and of what is private
        elif repository.gated:
            self._refuse(403, "GatedRepo")
        elif revision != "main" and revision not in {repository.head, *repository.commits}:
            self._refuse(404, "RevisionNotFound")
        else:
            return repository, repository.head if revision == "main" else revision
        return None

    # What is written

    def _create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._may_push(name):
            return
        if name in self.server.hub.repositories:
            self._json({"error": "You already created this model repo", "url": name}, 409)
            return
        is_private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.server.hub.add(name, Repository({".gitattributes": b""}, private=is_private))
        self._json({"url": f"{self.server.hub.endpoint}/{name}"})

    def _preupload(self, name: str) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        if self._may_push(name):
            files = [file["path"] for file in json.loads(self.body)["files"]]
            modes = [{"path": path, "uploadMode": mode(path), "shouldIgnore": False} for path in files]
            self._json({"files": modes})

    def _batch(self, name: str) -> None:
        def actions(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self.server.hub.endpoint}/lfs/{oid}"}}

        if self._may_push(name):
            objects = json.loads(self.body)["objects"]
            self._json({"objects": [{**file, "actions": actions(file["oid"])} for file in objects]})

    def _store(self, oid: str) -> None:
        if not self.server.hub.stores:
            self._json({"error": "Your storage is full."}, 403)
            return
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._send(400, b"")
            return
        self.server.hub.stored[oid] = self.body
        self._send(200, b"")

    def _push(self, name: str) -> None:
        if not self._may_push(name):
            return
        self.server.hub.before_commit()
        repository = self.server.hub.repositories[name]
        header, *operations = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit", repository.head) != repository.head:
            self._json({"error": "A commit has happened since. Please refresh and try again."}, 412)
            return
        files = dict(repository.files)
        for operation in operations:
            what, value = operation["key"], operation["value"]
            if what == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif what == "lfsFile":
                files[value["path"]] = self.server.hub.stored[value["oid"]]
            else:
                del files[value["path"]]
        repository.files = files
        commit = repository.head
        self._json({"commitUrl": f"{self.server.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    def _may_push(self, name: str) -> bool:
        """Whether the token may write there; a refusal was sent where it may not."""
        if not self.may_write:
            self._json({"error": "Invalid username or password."}, 401)
        elif not name.startswith("me/"):
            words = 'You don\'t have the rights to create a model under the namespace "others".'
            self._json({"error": words}, 403)
        else:
            return True
        return False

    def _yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    _routes = {  # noqa: RUF012 (a table of the class)
        r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?": _info,
        r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": _resolve,
        r"/api/repos/create": _create,
        r"/api/validate-yaml": _yaml,
        r"/api/models/([^/]+/[^/]+)/preupload/main": _preupload,
        r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": _batch,
        r"/lfs/(\w+)": _store,
        r"/api/models/([^/]+/[^/]+)/commit/main": _push,
    }

    def _refuse(self, status: int, code: str) -> None:
        self._json({"error": "no"}, status, {"X-Error-Code": code})

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
