"""A checkpoint out to the formats of others and in from them, each time with a receipt."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from pellucid import checkpoint
from pellucid.checkpoint import Loaded, narrowed
from pellucid.config import to_tree
from pellucid.errors import ParityError, StorageError
from pellucid.interop.card import model_card
from pellucid.interop.families import Family
from pellucid.interop.gguf import GGUFFormat, format_of_file, read_gguf, rounded, write_gguf
from pellucid.interop.huggingface import SHARD_BYTES, WeightFormat, read_hf, write_hf
from pellucid.interop.llama_cpp_side import LIBRARY, TOLERANCES, InLlamaCpp
from pellucid.interop.receipt import EXACT, FILE, LENGTH, Finding, Here, InTransformers, Receipt, compare
from pellucid.interop.safe_files import read_weights
from pellucid.model import ModelConfig, Transformer
from pellucid.runtime.files import (
    directory_written_aside,
    file_written_aside,
    require_space,
    storage_errors,
)
from pellucid.runtime.precision import DTYPES

_SMALL_FILES_BYTES = 32 << 20


def export_hf(
    source: Path,
    out: Path,
    *,
    weight_format: WeightFormat = "fp32",
    shard_bytes: int = SHARD_BYTES,
    licence: str | None = None,
) -> Receipt:
    """Write the checkpoint as a directory of Hugging Face's and have transformers read it, where it is installed.

    licence: its identifier for the model card, such as `apache-2.0`.
    Raises ParityError, with nothing left at `out`, where that is not the same model; ConfigError where no family can
    express it, and for a number that the format cannot hold.
    """
    loaded = checkpoint.load(source)
    _require_free(out)
    _require_room(out, loaded.model, DTYPES[weight_format].itemsize)
    with directory_written_aside(out) as aside:
        family = write_hf(
            aside, loaded.model, loaded.tokenizer, weight_format=weight_format, shard_bytes=shard_bytes
        )
        stored = _as_stored(loaded.model, family, weight_format)
        with _naming(out):
            receipt = _in_transformers(aside, stored, loaded).of(aside)
            receipt = receipt.with_first(_weights_finding(aside, stored, family))
            receipt.require()
        receipt.write(aside / FILE)
        card = model_card(loaded, name=out.name, family=family.name, receipt=receipt, licence=licence)
        (aside / "README.md").write_text(card, encoding="utf-8")
    return receipt


def export_gguf(source: Path, out: Path, *, number_format: GGUFFormat = "f16") -> Receipt:
    """Write the checkpoint as one .gguf file and have llama.cpp read it, where llama-cpp-python is installed.

    It is compared with our model of the same, rounded weights. The receipt lies beside the file. Raises ParityError,
    with nothing left at `out`, where that is not the same model; ConfigError or TokenizerError for what llama.cpp
    cannot be told.
    """
    loaded = checkpoint.load(source)
    beside = _receipt_beside(out)
    _require_room(out, loaded.model, 4)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with file_written_aside(out) as file:
            aside = Path(file.name)
            write_gguf(aside, loaded.model, loaded.tokenizer, number_format=number_format, name=out.stem)
            with _naming(out):
                receipt = _in_llama_cpp(aside, rounded(loaded.model, number_format), loaded, number_format)
                receipt = receipt.of(aside, name=out.name)
                receipt.require()
            receipt.write(beside)  # before the model is in its place, which none may be without
    return receipt


def export_weights(source: Path, out: Path, *, weight_format: WeightFormat = "fp32") -> Path:
    """Write the checkpoint without its training state, in any float format: what `generate` and `evaluate` need."""
    loaded = checkpoint.load(source)
    _require_free(out)
    _require_room(out, loaded.model, DTYPES[weight_format].itemsize)
    _write_checkpoint(out, loaded, weight_format)
    return out


def _write_checkpoint(out: Path, loaded: Loaded, weight_format: WeightFormat) -> None:
    weights = {
        name: narrowed(name, parameter, weight_format) for name, parameter in loaded.model.named_parameters()
    }
    checkpoint.save(out, checkpoint.Contents(loaded.config, weights, loaded.tokenizer))


def import_model(source: Path, out: Path, *, name: str | None = None) -> Receipt:
    """Read a directory of Hugging Face's or a .gguf file, and write a checkpoint of its weights.

    name: what the checkpoint's config calls the source, where that is not the name of the directory or file.

    Raises CheckpointError, before anything is written, for what cannot be read here; ParityError where transformers
    or llama.cpp, if it is installed, reads another model.
    """
    beside = _receipt_beside(out)
    is_gguf = source.suffix == ".gguf"
    foreign = read_gguf(source) if is_gguf else read_hf(source)
    model = build(foreign.config, foreign.weights)
    _require_room(out, model, 4)
    origin = {"imported": {"from": name or source.absolute().name, "family": foreign.family}}
    loaded = Loaded(model, foreign.tokenizer, {"model": to_tree(model.config), **origin}, out)
    with _naming(source):
        if is_gguf:
            receipt = _in_llama_cpp(source, model, loaded, format_of_file(source))
        else:
            receipt = _in_transformers(source, model, loaded)
        receipt = receipt.of(source)
        receipt.require()
    _write_checkpoint(out, loaded, "fp32")
    receipt.write(beside)
    return receipt


def build(config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
    """The model with the weights, in float32."""
    with torch.device("meta"):
        model = config.build()
    model.to_empty(device="cpu")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval()


def is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _in_transformers(directory: Path, model: Transformer, loaded: Loaded) -> Receipt:
    if not is_installed("transformers"):
        return Receipt("transformers", not_compared="transformers is not installed here")
    if fault := InTransformers.unusable():
        return Receipt("transformers", not_compared=fault)
    here = Here(model, loaded.tokenizer)
    return compare(here, InTransformers(directory), loaded.tokenizer, model, EXACT)


def _in_llama_cpp(path: Path, model: Transformer, loaded: Loaded, number_format: GGUFFormat) -> Receipt:
    if not is_installed(LIBRARY):
        return Receipt("llama.cpp", not_compared="llama-cpp-python is not installed here")
    try:
        there = InLlamaCpp(path, length=min(model.max_seq_len, LENGTH))
    except ImportError as error:
        return Receipt("llama.cpp", not_compared=f"llama-cpp-python does not work here: {error}")
    here = Here(model, loaded.tokenizer)
    return compare(here, there, loaded.tokenizer, model, TOLERANCES[number_format])


def _as_stored(model: Transformer, family: Family, weight_format: WeightFormat) -> Transformer:
    """The model with the digits that the files keep, which may be of other numbers: Gemma's gains are kept less one."""
    theirs = family.maps.weights_to_hf(model.state_dict(), model.config)
    stored = {name: tensor.to(DTYPES[weight_format]).float() for name, tensor in theirs.items()}
    return build(model.config, family.maps.weights_from_hf(stored, model.config))


def _weights_finding(directory: Path, expected: Transformer, family: Family) -> Finding:
    """Whether what was written comes back here to the bit."""
    wanted = expected.state_dict()
    found = family.maps.weights_from_hf(read_weights(directory), expected.config)
    other = sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or not torch.equal(found[name].float(), wanted[name])
    )
    shown = f" (the first: {other[0]})" if other else ""
    return Finding("weights, read back here", f"{len(other)} of {len(wanted)} differ{shown}", not other)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Say of a receipt's faults which model they are of."""
    try:
        yield
    except ParityError as error:
        raise ParityError(f"{path}: {error}") from error.__cause__


def _receipt_beside(out: Path) -> Path:
    """Where the receipt of what is no directory for it goes. Raises StorageError where either is in the way."""
    beside = out.with_name(f"{out.name}.{FILE}")
    for path in (out, beside):
        _require_free(path)
    return beside


def _require_free(out: Path) -> None:
    """Raise StorageError where something is there."""
    if out.exists():
        raise StorageError(f"{out}: is in the way; remove it or name another")


def _require_room(out: Path, model: Transformer, bytes_each: int) -> None:
    size = sum(parameter.numel() for parameter in model.parameters()) * bytes_each
    require_space(out, size + _SMALL_FILES_BYTES, purpose="the exported model")
