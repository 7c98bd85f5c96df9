"""Models of the Hugging Face hub: fetched for import, and pushed when they have been exported.

Address and token are those of `huggingface_hub`: HF_ENDPOINT, read at each call; HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import CheckpointError, HubError
from pellucid.interop.families import family_of
from pellucid.interop.hub_errors import LOG_IN, hub_errors, unreachable
from pellucid.interop.huggingface import CONFIG, read_config
from pellucid.interop.receipt import FILE as RECEIPT
from pellucid.interop.receipt import model_files
from pellucid.interop.safe_files import INDEX, ONE, no_weights, shards
from pellucid.runtime.files import sha256_file
from pellucid.runtime.hub import client, endpoint
from pellucid.tokenizers.stored import TOKENIZER_JSON

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>.+))?")
_BESIDE = ("generation_config.json", "special_tokens_map.json", TOKENIZER_JSON, "tokenizer_config.json")
_PUSHED = re.compile(
    rf"{'|'.join(map(re.escape, (CONFIG, *_BESIDE, RECEIPT, 'README.md')))}"
    rf"|(?:model[\w.-]*\.safetensors|{re.escape(INDEX)})"
)
_TIMEOUT_S = 20.0

_log = logging.getLogger(__name__)

# From the hub -----------------------------------------------------------------------------------------


def locate(source: str) -> Path:
    """What a source of `pellucid import` means: a path where there is one, else OWNER/NAME[@REVISION] of the hub."""
    named = _NAME.fullmatch(source)
    folder = Path(source).parent
    if named is None or Path(source).exists() or folder.is_dir() or source.endswith(".gguf"):
        return Path(source)  # also a misspelt one in a folder that is here: its name is nobody's business
    return pull(named["name"], named["revision"])


def pull(name: str, revision: str | None = None) -> Path:
    """Fetch what import needs of a repository into the cache of `huggingface_hub`; returns the directory there.

    Never pickles, and of several copies of the weights one. The directory is named by its commit. Where no hub
    answers, what an earlier call fetched is taken, and the log says so. Raises HubError for a repository that cannot
    be read, and CheckpointError, before any weights are fetched, for one that cannot be imported.
    """
    where = f"{name}@{revision}" if revision else name
    with hub_errors(where):
        try:
            info = client().HfApi(endpoint=endpoint()).model_info(name, revision=revision, timeout=_TIMEOUT_S)
        except unreachable():
            cached = client().try_to_load_from_cache(name, CONFIG, revision=revision)
            if not isinstance(cached, str):
                raise
            directory = Path(cached).parent
            _log.warning("%s: no hub answers; taken from the cache: commit %s", where, directory.name)
            return directory
        directory = _fetch(name, revision, where, {file.rfilename for file in info.siblings})
    _log.info("%s: commit %s", where, directory.name)
    return directory


def _fetch(name: str, revision: str | None, where: str, names: set[str]) -> Path:
    """Fetch what is needed of the files of these names, the small ones first: they say whether it can be imported."""

    def fetch(file: str, revision: str | None) -> Path:
        return Path(client().hf_hub_download(name, file, revision=revision, endpoint=endpoint()))

    if CONFIG not in names:
        raise _no_model(where, names)
    directory = fetch(CONFIG, revision).parent  # by the name that was given, so that the cache knows it, too
    theirs = read_config(directory)
    family_of(theirs).maps.config_from_hf(theirs)
    if TOKENIZER_JSON not in names:
        raise CheckpointError(f"{where}: no {TOKENIZER_JSON} in it, so its ids cannot be read as text")
    commit = directory.name
    wanted = _weight_files(where, names, lambda: fetch(INDEX, commit))
    for file in (*_BESIDE, *wanted):
        if file in names:
            fetch(file, commit)
    return directory


def _weight_files(where: str, names: set[str], find_index: Callable[[], Path]) -> list[str]:
    """Which of the files of these names hold the weights. Raises CheckpointError where they are not all there."""
    if ONE in names:
        return [ONE]
    if INDEX not in names:
        raise no_weights(where, names)
    wanted = sorted(shards(find_index()))
    if missing := [file for file in wanted if file not in names]:
        raise CheckpointError(
            f"{where}: {INDEX} names {missing[0]}, and there is no such file; fetch it, too"
        )
    return wanted


def _no_model(where: str, names: set[str]) -> CheckpointError:
    if packed := sorted(name for name in names if name.endswith(".gguf")):
        return CheckpointError(
            f"{where}: has GGUF files and no {CONFIG}; fetch one, `hf download {where.partition('@')[0]} {packed[0]} "
            "--local-dir DIR`, and import that file"
        )
    return CheckpointError(f"{where}: no {CONFIG} in it, so it is no model of Hugging Face's")


# To the hub -------------------------------------------------------------------------------------------


def files_to_push(directory: Path, *, unproven: bool = False) -> list[Path]:
    """The files of an exported directory that belong to the model, by name; others that lie there are left out.

    Raises CheckpointError where the model is not whole, or its receipt has not passed; `unproven` pushes it without.
    """
    read_config(directory)
    files = sorted(file for file in directory.iterdir() if _PUSHED.fullmatch(file.name) and file.is_file())
    names = {file.name for file in files}
    _weight_files(str(directory), names, lambda: directory / INDEX)
    if not unproven and (fault := _unproven(directory, files)):
        raise CheckpointError(
            f"{directory}: {fault}; export it again where the other side can read it (pip install 'pellucid[export]'), "
            "or push it --unproven"
        )
    return files


def push(directory: Path, name: str, *, private: bool = False, unproven: bool = False) -> str:
    """Upload an exported directory as one commit to OWNER/NAME, which is made if need be; returns its address.

    Files of an earlier push that this one does not have are removed in the same commit. private: make a new
    repository private; one that is there and public is refused. Raises CheckpointError as `files_to_push`, and
    HubError where the hub does not take it; then what was in the repository is as it was.
    """
    files = files_to_push(directory, unproven=unproven)
    contents = {file.name: _content(file, name) for file in files}
    hub, address = client(), endpoint()
    with hub_errors(name):
        if hub.get_token() is None:
            raise HubError(f"{name}: no token to push with; {LOG_IN}")
        api = hub.HfApi(endpoint=address)
        api.create_repo(name, private=private or None, exist_ok=True)
        info = api.model_info(name, timeout=_TIMEOUT_S)
        if private and not info.private:
            raise HubError(f"{name}: is public already; make it private on its page, or name another")
        commit = api.create_commit(
            name,
            operations=[
                *(hub.CommitOperationAdd(file, content) for file, content in contents.items()),
                *(
                    hub.CommitOperationDelete(old)
                    for old in _of_a_model(info.siblings)
                    if old not in contents
                ),
            ],
            commit_message="Export from Pellucid",
            parent_commit=info.sha,
        )
    return str(commit.commit_url)


def _content(file: Path, name: str) -> Path | bytes:
    """What is uploaded for a file: itself; of the card, its text with the name that it is now loaded by."""
    if file.name != "README.md":
        return file
    card = file.read_bytes()
    exported = re.search(rb'from_pretrained\("([^"]*)"\)', card)
    return card.replace(exported[0], f'from_pretrained("{name}")'.encode()) if exported else card


def _of_a_model(siblings: Any) -> list[str]:
    return [file.rfilename for file in siblings if _PUSHED.fullmatch(file.rfilename)]


def _unproven(directory: Path, files: Sequence[Path]) -> str | None:
    """What is wrong with its receipt; None: it has passed, with just these files."""
    receipt = directory / RECEIPT
    try:
        content: Any = json.loads(receipt.read_bytes())
        if content["not_compared"]:
            return f"its {RECEIPT} says that it was not compared ({content['not_compared']})"
        if content["passed"] is not True:
            return f"its {RECEIPT} has not passed"
        compared = dict(content["files"])
        read = [file for file in model_files(directory) if file in files]
        changed = [file.name for file in read if compared.get(file.name) != sha256_file(file)]
        return f"its {RECEIPT} is of another {changed[0]}" if changed else None
    except FileNotFoundError:
        return f"there is no {RECEIPT} in it"
    except (OSError, ValueError, LookupError, TypeError):
        return f"its {RECEIPT} cannot be read"
