"""Data sets of the Hugging Face hub: the Parquet files of their train split, read where they lie."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast
from urllib.parse import quote

from pellucid.config import nearest
from pellucid.data.sources import remote
from pellucid.data.sources.base import Reading, SourceRecord
from pellucid.data.sources.files import FileSource
from pellucid.data.sources.formats import Kind
from pellucid.data.sources.remote import Fault, RemoteFile, patiently
from pellucid.errors import DataError
from pellucid.runtime.extras import require
from pellucid.runtime.hub import client, endpoint

T = TypeVar("T")

PREFIX = "hub:"

_SPEC = re.compile(r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?")
_CARD = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAGIC = re.compile(r"[*?\[]")
_NAMED = r"(?:^|[/ ._\-0-9])(?:{})(?:[/ ._\-0-9]|$)"
_TRAIN = re.compile(_NAMED.format("train|training"))
_OTHER_SPLIT = re.compile(_NAMED.format("test|testing|eval|evaluation|validation|valid|val|dev"))

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listed:
    """A file of a commit, as the hub lists it."""

    path: str
    size_bytes: int
    hash: str


@dataclass(frozen=True)
class _CardConfig:
    """One of the `configs` of a data set card: which files are which split."""

    name: str
    is_default: bool
    folder: str
    patterns: Mapping[str, Sequence[str]]
    """Of each split; none: the files say by their names which split they are."""


class _Repository:
    """One commit of a data set on the hub."""

    def __init__(self, name: str, spec: str, revision: str | None) -> None:
        self._name, self._spec = name, spec
        hub, self._endpoint, self.patience = client(), endpoint(), remote.PATIENCE

        def resolve() -> str:
            info = hub.HfApi(endpoint=self._endpoint).dataset_info(
                name, revision=revision, expand=["sha"], timeout=self.patience.timeouts
            )
            return str(info.sha)

        self.commit = patiently(spec, _decoding(resolve), self.patience, is_first=True)

    def url(self, path: str) -> str:
        hub = client()
        return hub.hf_hub_url(
            self._name, path, repo_type="dataset", revision=self.commit, endpoint=self._endpoint
        )

    def card(self) -> str:
        """The text of the data set card; empty where there is none."""

        def read() -> str:
            try:
                return remote.get(self.url("README.md"), self.patience).text
            except client().errors.EntryNotFoundError:
                return ""

        return patiently(f"{self._spec}: its card", read, self.patience)

    def files(self, folder: str = "") -> list[_Listed]:
        """All files below a folder, sorted by path; none where there is no such folder."""
        address = f"{self._endpoint}/api/datasets/{self._name}/tree/{self.commit}"
        address += f"/{quote(folder, safe='')}" if folder else ""
        listed: list[_Listed] = []
        url: str | None = f"{address}?recursive=true&expand=false"
        while url is not None:
            page, url = patiently(
                f"{self._spec}: the list of its files",
                _decoding(lambda at=url: self._page(at)),
                self.patience,
            )
            listed += page
        return sorted(listed, key=lambda file: file.path)

    def _page(self, url: str) -> tuple[list[_Listed], str | None]:
        try:
            response = remote.get(url, self.patience)
        except client().errors.EntryNotFoundError:
            return [], None
        files = [
            _Listed(
                entry["path"],
                entry["size"],
                lfs["oid"] if (lfs := entry.get("lfs")) else f"git:{entry['oid']}",
            )
            for entry in response.json()
            if entry["type"] == "file"
        ]
        return files, response.links.get("next", {}).get("url")


def _decoding(attempt: Callable[[], T]) -> Callable[[], T]:
    """An attempt for which an answer that is no JSON, or not the JSON that was wanted, is a fault."""

    def decoded() -> T:
        try:
            return attempt()
        except client().errors.HFValidationError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise Fault(f"an answer that cannot be read ({type(error).__name__}: {error})") from None

    return decoded


class HubSource(FileSource):
    """The train split of a data set on the hub: `hub:OWNER/NAME[:CONFIG][@REVISION]`, a document a row.

    Its files are, in this order: what the card's `configs` say, as the `datasets` library reads them (without a
    CONFIG, the one called or marked as default, or the only one); without configs in the card, the .parquet files
    below CONFIG/ or data/CONFIG/; without a CONFIG either, data/train-*.parquet, then the .parquet files at the top,
    then those of the only folder that has any, or of train/ or default/. Where names tell no split by the card,
    those with the word `train` are read, else all that do not have the name of another split.

    Of a file the footer and the columns that are read are fetched, by ranges of bytes; nothing is kept on the disk.
    The revision is resolved to a commit once; `pinned` names it. Address and token are those of `huggingface_hub`
    (HF_ENDPOINT, read when the source is opened; HF_TOKEN or `hf auth login`).

    Raises DataError for a name that is malformed or unknown, a data set that may not be read or has no such config,
    no train split or no Parquet; and when the network is gone, here and while reading.
    HubError for an HF_ENDPOINT that is no address.
    """

    def __init__(self, spec: str, reading: Reading) -> None:
        named = _SPEC.fullmatch(spec.removeprefix(PREFIX))
        if named is None:
            raise DataError(
                f"{spec}: wanted {PREFIX}OWNER/NAME, {PREFIX}OWNER/NAME:CONFIG, or either with @REVISION behind it"
            )
        repo, config, revision = named["repo"], named["config"], named["revision"]
        name = repo + (f":{config}" if config else "")
        repository = _Repository(repo, spec, revision)
        self.commit = repository.commit
        """The revision that is read."""
        self.pinned = f"{PREFIX}{name}@{self.commit}"
        """The same data set as it is now: opened by this name, it has the same bytes at any time."""
        files = [
            RemoteFile(
                url=repository.url(file.path),
                name=file.path,
                where=f"{PREFIX}{repo}@{self.commit[:8]}/{file.path}",
                size_bytes=file.size_bytes,
                hash=file.hash,
                patience=repository.patience,
            )
            for file in _train_files(repository, spec, config)
        ]
        super().__init__(name, [(file, Kind(".parquet")) for file in files], reading, one_of_several=True)

    def record(self) -> SourceRecord:
        """The identity of every file by the hub's own hashes: nothing is fetched for it."""
        return super().record().model_copy(update={"revision": self.commit})


# Which files a data set is ---------------------------------------------------------------------------


def _train_files(repository: _Repository, spec: str, config: str | None) -> list[_Listed]:
    configs = _card_configs(repository.card(), spec)
    if not configs:
        return _files_by_name(repository.files(), spec, config)
    chosen = _choose(configs, spec, config)
    if not chosen.patterns:
        return _parquet(_of_train(repository.files(chosen.folder), chosen.folder), spec, chosen.name)
    if "train" not in chosen.patterns:
        there = ", ".join(chosen.patterns)
        raise DataError(
            f"{spec}: config {chosen.name!r} has no split 'train' (splits: {there}); fetch the files of another split "
            "with `hf download`, and name them as the path"
        )
    listings: dict[str, list[_Listed]] = {}
    found: dict[str, _Listed] = {}
    for pattern in chosen.patterns["train"]:
        matches, folder = _matcher(pattern, spec), _folder_of(pattern)
        if folder not in listings:
            listings[folder] = repository.files(folder)
        found |= {file.path: file for file in listings[folder] if matches.match(file.path)}
    if not found:
        said = ", ".join(chosen.patterns["train"])
        raise DataError(f"{spec}: no file matches what the card says of config {chosen.name!r} ({said})")
    tables = _parquet(list(found.values()), spec, chosen.name)
    if len(tables) < len(found):
        _log.warning(
            "%s: of %d files of the train split, the %d .parquet files are read",
            spec,
            len(found),
            len(tables),
        )
    return tables


def _card_configs(card: str, spec: str) -> list[_CardConfig]:
    found = _CARD.match(card.removeprefix("\ufeff"))
    yaml = require("yaml", extra="data", purpose="reading a data set card")
    try:
        data: Any = yaml.safe_load(found[1]) if found else None
        entries = cast(dict[str, Any], data).get("configs") if isinstance(data, dict) else None
        if isinstance(entries, dict):
            entries = [entries]
        return [_card_config(entry) for entry in cast(list[dict[str, Any]], entries or [])]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{spec}: the `configs` of its data set card cannot be read ({said})") from None


def _card_config(entry: dict[str, Any]) -> _CardConfig:
    folder = str(entry.get("data_dir") or "").strip("/").removeprefix("./")
    files = entry.get("data_files")
    splits: list[tuple[str, Any]]
    if files is None:
        splits = []
    elif isinstance(files, dict):
        splits = list(cast(dict[str, Any], files).items())
    elif isinstance(files, list) and all(isinstance(part, dict) for part in cast(list[Any], files)):
        splits = [(str(part["split"]), part["path"]) for part in cast(list[dict[str, Any]], files)]
    else:
        splits = [("train", files)]
    return _CardConfig(
        name=str(entry.get("config_name", "default")),
        is_default=bool(entry.get("default")),
        folder=folder,
        patterns={split: [_below(folder, path) for path in _listed(paths)] for split, paths in splits},
    )


def _listed(paths: Any) -> list[str]:
    return [str(path) for path in cast(list[Any], paths)] if isinstance(paths, list) else [str(paths)]


def _below(folder: str, path: str) -> str:
    path = path.removeprefix("./")
    return f"{folder}/{path}" if folder and "://" not in path else path


def _choose(configs: Sequence[_CardConfig], spec: str, name: str | None) -> _CardConfig:
    known = {config.name: config for config in configs}
    if name is None:
        marked = [config for config in configs if config.is_default] or [
            config for config in configs if config.name == "default" or len(configs) == 1
        ]
        if not marked:
            raise DataError(f"{spec}: has several configs: name one of them behind a colon ({_few(known)})")
        return marked[0]
    if name not in known:
        raise DataError(f"{spec}: has no config {name!r}{nearest(name, known)} (configs: {_few(known)})")
    return known[name]


def _few(names: Mapping[str, Any] | Sequence[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")


def _matcher(pattern: str, spec: str) -> re.Pattern[str]:
    if "://" in pattern:
        raise DataError(f"{spec}: its card names files that lie elsewhere ({pattern}), which are not read")
    translate = require("fsspec.utils", extra="data", purpose="reading a data set card").glob_translate
    return re.compile(translate(pattern) if _MAGIC.search(pattern) else re.escape(pattern) + r"\Z")


def _folder_of(pattern: str) -> str:
    """The folder in which everything lies that a pattern matches."""
    parts = pattern.split("/")[:-1]
    fixed = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return "/".join(parts[:fixed])


def _files_by_name(files: Sequence[_Listed], spec: str, config: str | None) -> list[_Listed]:
    """The train split of a data set whose card says nothing of its files."""
    tables = [file for file in files if _is_parquet(file)]
    if not tables:
        return _parquet(files, spec, config)
    folders = {PurePosixPath(file.path).parts[0] for file in tables if "/" in file.path}
    below = {PurePosixPath(file.path).parts[1] for file in tables if re.match("data/.+/", file.path)}
    if config is not None:
        for folder in (config, f"data/{config}"):
            inside = [file for file in tables if file.path.startswith(folder + "/")]
            if inside:
                return _parquet(_of_train(inside, folder), spec, config)
        known = sorted((folders - {"data"}) | below)
        there = f"folders with .parquet files: {_few(known)}" if known else "and no folders that could be one"
        raise DataError(f"{spec}: has no config {config!r}{nearest(config, known)} ({there})")
    if usual := [file for file in tables if re.fullmatch(r"data/train-[^/]*", file.path)]:
        return usual
    if top := [file for file in tables if "/" not in file.path]:
        return _parquet(_of_train(top, ""), spec, config)
    chosen = folders if len(folders) == 1 else folders & {"train"} or folders & {"default"}
    if not chosen:
        raise DataError(
            f"{spec}: has several folders with .parquet files: name one of them behind a colon "
            f"({_few(sorted(folders))})"
        )
    (folder,) = chosen
    inside = [file for file in tables if file.path.startswith(folder + "/")]
    return _parquet(inside if folder == "train" else _of_train(inside, folder), spec, config)


def _of_train(files: Sequence[_Listed], folder: str) -> list[_Listed]:
    """The files whose names say `train`; where none does, those that do not say another split."""
    inside = {file.path: file.path.removeprefix(folder).removeprefix("/") for file in files}
    said = [file for file in files if _TRAIN.search(inside[file.path])]
    return said or [file for file in files if not _OTHER_SPLIT.search(inside[file.path])]


def _is_parquet(file: _Listed) -> bool:
    return file.path.lower().endswith(".parquet")


def _parquet(files: Sequence[_Listed], spec: str, config: str | None) -> list[_Listed]:
    """The Parquet files among them. Raises DataError where there is none."""
    kinds = Counter(PurePosixPath(file.path).suffix or "without a suffix" for file in files)
    there = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "no files"
    tables = [file for file in files if _is_parquet(file)]
    if not tables:
        plain = spec.removeprefix(PREFIX).partition("@")[0].partition(":")[0]
        raise DataError(
            f"{spec}: its train split has no Parquet files (found: {there}); the hub keeps many data sets as Parquet "
            f"in a branch of its own: try {PREFIX}{plain}:{config or 'default'}@refs/convert/parquet, or fetch the "
            "files with `hf download` and name them as the path"
        )
    if len(tables) < len(files):
        _log.warning(
            "%s: %d of %d files are Parquet and are read (found: %s)", spec, len(tables), len(files), there
        )
    return tables
