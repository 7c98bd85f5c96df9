"""Files that appear whole or not at all, and errors before the disk is full. No torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid.errors import StorageError


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
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with storage_errors(path):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


@contextmanager
def directory_written_aside(path: Path) -> Iterator[Path]:
    """Fill the yielded directory; it becomes `path` in one rename once every file in it is on the disk.

    When the body raises, what was written is removed and `path` is untouched. `path` must not exist yet,
    or be an empty directory.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=ASIDE_SUFFIX, dir=path.parent))
        try:
            yield aside
            for file in sorted(aside.rglob("*")):
                if file.is_file():
                    with file.open("rb+") as handle:
                        os.fsync(handle.fileno())
            for folder in [*(f for f in aside.rglob("*") if f.is_dir()), aside]:
                fsync_directory(folder)
            aside.chmod(0o755)
            aside.replace(path)
            fsync_directory(path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


ASIDE_SUFFIX = ".partial"


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left of a directory written aside."""
    for leftover in folder.glob(f".*{ASIDE_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


def require_space(path: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise StorageError unless `path`'s disk has the bytes, before anything is written there."""
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
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one clear StorageError."""
    try:
        yield
    except PermissionError as error:
        raise StorageError(f"{error.filename or path}: cannot be written: permission denied") from error
    except NotADirectoryError as error:
        raise StorageError(f"{error.filename or path}: a file is in the way of a directory") from error
    except FileExistsError as error:
        raise StorageError(f"{error.filename or path}: is in the way, and is not a directory") from error
    except OSError as error:
        if error.errno in (28, 122, 30):  # no space left, quota exceeded, read-only file system
            raise StorageError(
                f"{path}: {os.strerror(error.errno).lower()}; nothing that was there is lost"
            ) from error
        raise
