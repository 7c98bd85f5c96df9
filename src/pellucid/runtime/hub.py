"""The client of the Hugging Face hub, as data sets and models use it."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from pellucid.errors import HubError
from pellucid.runtime.extras import require


def client() -> Any:
    """The package huggingface_hub with the modules that are used, or a MissingLibraryError."""
    hub = _require("huggingface_hub")
    for module in ("constants", "errors", "utils"):  # not loaded by themselves in each process
        _require(f"huggingface_hub.{module}")
    # Else the client fetches a list of agents before its first request, and waits seconds for it without a network.
    hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return hub


def requests() -> Any:
    """The client's own library for requests: httpx, from huggingface_hub 2 on httpx2."""
    return _require(type(client().utils.get_session()).__module__.partition(".")[0])


def endpoint() -> str:
    """The hub's address: of HF_ENDPOINT now, else as the client took it from its environment when it was imported."""
    address = os.environ.get("HF_ENDPOINT") or client().constants.ENDPOINT
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise HubError(f"HF_ENDPOINT: an address such as https://HOST is wanted, not {address!r}")
    return address.rstrip("/")


def _require(module: str) -> Any:
    return require(module, extra="data", purpose="the Hugging Face hub")
