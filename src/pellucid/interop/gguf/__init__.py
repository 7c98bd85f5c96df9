"""GGUF, the one-file format of llama.cpp and what is built on it."""

from pellucid.interop.gguf.formats import GGUFFormat
from pellucid.interop.gguf.read import format_of_file, read_gguf
from pellucid.interop.gguf.rounding import rounded
from pellucid.interop.gguf.write import write_gguf

__all__ = ["GGUFFormat", "format_of_file", "read_gguf", "rounded", "write_gguf"]
