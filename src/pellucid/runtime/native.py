"""C++ of our own: compiled where it is first needed, kept in the cache folder, called through ctypes.

It needs a compiler and nothing else, neither torch's headers nor Python's, and takes about a second, once. Where that
fails everything works by torch alone, and `Built.reason` says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pellucid.errors import StorageError
from pellucid.runtime.files import cache_folder, write_atomic
from pellucid.runtime.processor import cpu_features, cpu_name

VARIABLE = "PELLUCID_NATIVE"
"""Set to 0, it keeps everything to torch."""

_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Built:
    """A library that was built and loaded, or why there is none."""

    library: ctypes.CDLL | None
    reason: str


@cache
def build(source: Path) -> Built:
    """The shared library of one C++ file, for the processor of this machine."""
    if os.environ.get(VARIABLE) == "0":
        return Built(None, f"{VARIABLE} is 0")
    if sys.platform == "win32":
        return Built(None, "not built on Windows")
    compiler = find_compiler()
    if compiler is None:
        return Built(None, "no C++ compiler found (c++, g++ or clang++)")
    try:
        path = _compiled(source, compiler)
        return Built(ctypes.CDLL(str(path)), f"built by {Path(compiler).name}")
    except (OSError, StorageError, subprocess.SubprocessError) as error:
        return Built(None, f"{Path(compiler).name} cannot build it: {_first_line(error)}")


def find_compiler() -> str | None:
    """$CXX, or the first of the usual names that is here."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _compiled(source: Path, compiler: str) -> Path:
    """The library in the cache folder, built anew for another source, compiler, processor or set of flags."""
    # cpu_features asks torch, so OpenMP is torch's by now: one pool of threads, and its number of them holds here too.
    version = _run([compiler, "--version"])
    key = repr((source.read_bytes(), _FLAGS, compiler, version, cpu_name(), cpu_features()))
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = cache_folder() / "native" / name
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / name
            _run([compiler, *_FLAGS, str(source), "-o", str(built)])
            write_atomic(path, built.read_bytes())
    return path


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise OSError(done.stderr.strip() or f"exit status {done.returncode}")
    return done.stdout


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else type(error).__name__)[
        :200
    ]
