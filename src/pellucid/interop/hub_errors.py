"""One clear line for each way in which a request to the Hugging Face hub ends badly."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pellucid.errors import HubError
from pellucid.runtime.hub import client, endpoint, requests

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def unreachable() -> tuple[type[Exception], ...]:
    """What the client raises where no hub answers, or none may be asked (HF_HUB_OFFLINE)."""
    return (client().errors.OfflineModeIsEnabled, requests().RequestError)


@contextmanager
def hub_errors(name: str) -> Generator[None]:
    """Turn what the client raises over a repository into a HubError of one line, in which no token is."""
    hub, library = client(), requests()
    try:
        yield
    except (
        *(OSError, ValueError, TypeError, LookupError, RuntimeError),
        *(library.HTTPError, library.InvalidURL, hub.errors.EntryNotFoundError),
    ) as error:
        raise HubError(f"{name}: {_reason(_cause(error))}") from None


def _cause(error: Exception) -> Exception:
    """What is behind 'not in the cache either', and behind 'error while uploading'."""
    wrappers = (client().errors.LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _reason(error: Exception) -> str:
    errors, library = client().errors, requests()
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub is not asked, since HF_HUB_OFFLINE is set"
    if isinstance(error, errors.HFValidationError):
        return "no name of a repository; OWNER/NAME is wanted, of letters, digits, '-', '_' and '.'"
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error)
    if isinstance(error, library.LocalProtocolError | UnicodeError):  # its words have the headers in them
        return "the request cannot be made; look whether HF_TOKEN and HF_ENDPOINT have characters that do not belong"
    host = urlsplit(endpoint()).netloc.rpartition("@")[2]
    if isinstance(error, library.RequestError):
        return f"no answer from {host} ({_said(error)}); check the network, and HF_ENDPOINT where it is set"
    if isinstance(error, ConnectionError | TimeoutError):  # of hf-xet, which moves the large files
        return f"the transfer broke off ({_said(error)}); try again"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be stored here ({_said(error)})"
    return f"an answer of {host} that cannot be read ({_said(error)})"


def _refusal(error: Any) -> str:
    errors, status = client().errors, error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated (status {status}): ask for access on its page, then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub knows no such repository (status {status}): is the name right? If it is private, {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no such revision (status {status}): name a branch, a tag or a commit behind @"
    words = " ".join(str(error.server_message or "").split())[:200]
    said = f"status {status}" + (f": {words}" if words else "")
    if status in {401, 403}:
        return f"the hub refuses it ({said}); {LOG_IN}, with a token that may do this"
    if status == 412:
        return f"somebody else has changed the repository meanwhile ({said}); try again"
    if status == 429 or status >= 500:
        return f"the hub cannot answer now ({said}); try again later"
    return f"the hub refuses it ({said})"


def _said(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__
