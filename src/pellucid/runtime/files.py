"""Files that appear whole or not at all, and errors before the disk is full. No torch."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs

from pellucid.errors import StorageError

ASIDE_SUFFIX = ".partial"
CACHE_VARIABLE = "PELLUCID_CACHE_DIR"


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where what can be made anew lies: the argument, else $PELLUCID_CACHE_DIR, else the platform's own."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("pellucid", appauthor=False)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory survive a power cut. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Missing folders above it are made. Raises StorageError when it cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_written_aside(path) as file:
            file.write(data)


@contextmanager
def file_written_aside(path: Path) -> Generator[IO[bytes]]:
    """Write the yielded file; it becomes `path` in one rename once it is on the disk.

    When the body raises, what was written is removed and `path` is untouched.
    """
    temporary = _aside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def directory_written_aside(path: Path) -> Generator[Path]:
    """Fill the yielded directory; it becomes `path` in one rename once every file in it is on the disk.

    When the body raises, what was written is removed and `path` is untouched. Raises StorageError, before
    the body runs, when `path` is a file or a directory with something in it.
    """
    with storage_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        aside.mkdir()
        try:
            yield aside
            for file in sorted(aside.rglob("*")):
                if file.is_file():
                    with file.open("rb+") as handle:
                        os.fsync(handle.fileno())
            for folder in [*(f for f in aside.rglob("*") if f.is_dir()), aside]:
                fsync_directory(folder)
            if path.exists():
                path.rmdir()  # Windows renames over nothing, not even over an empty directory
            aside.replace(path)
            fsync_directory(path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _aside(path: Path) -> Path:
    """A new name beside `path`, hidden, which `remove_leftovers` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{ASIDE_SUFFIX}")


def remove_leftovers(folder: Path) -> None:
    """Remove the files and directories that a killed process was writing aside."""
    for leftover in folder.glob(f".*{ASIDE_SUFFIX}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def require_space(path: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise StorageError unless `path`'s disk has the bytes, before anything is written there."""
    with storage_errors(path):
        free = shutil.disk_usage(_existing(path)).free
    if free < needed_bytes:
        raise StorageError(
            f"{path}: {purpose} needs {needed_bytes / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB free; "
            "free some space or name another directory"
        )


def require_writable(folder: Path) -> None:
    """Create the folder if needed and raise StorageError unless files can be made in it."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""No space left, quota exceeded, a read-only file system, a file larger than the system allows."""


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn the operating system's refusals to write into one clear StorageError."""
    try:
        yield
    except OSError as error:
        refused = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        if refused.name.startswith(f".{path.name}."):  # written aside: the user knows it by its own name
            refused = path
        if isinstance(error, PermissionError):
            raise StorageError(f"{refused}: cannot be written: permission denied") from error
        if isinstance(error, NotADirectoryError):
            raise StorageError(f"{_existing(refused)}: a file is in the way of a directory") from error
        if isinstance(error, FileExistsError | IsADirectoryError) or error.errno == errno.ENOTEMPTY:
            raise StorageError(f"{refused}: is in the way; remove it or name another") from error
        if error.errno in _REFUSALS:
            reason = os.strerror(error.errno).lower()
            raise StorageError(f"{path}: {reason}; nothing that was there is lost") from error
        raise
