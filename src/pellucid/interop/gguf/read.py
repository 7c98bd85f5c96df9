"""A GGUF file of the Llama family → our config, weights and tokenizer. Quantised tensors are computed back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.errors import CheckpointError, MissingLibraryError, UserError
from pellucid.interop.gguf.container import Container, StoredTensor, read_container
from pellucid.interop.gguf.fields import config_json
from pellucid.interop.gguf.formats import FILE_TYPES, GGUFFormat
from pellucid.interop.gguf.rotary import separate
from pellucid.interop.gguf.words import NORMAL, Words, tokenizer_of
from pellucid.interop.huggingface import Foreign, require_ids
from pellucid.interop.maps import llama
from pellucid.model import DecoderConfig
from pellucid.model.stats import on_meta
from pellucid.runtime.extras import require


def read_gguf(path: Path) -> Foreign:
    """The model of a file. Weights are float32, queries and keys in halves again.

    Raises CheckpointError for another architecture, a file that is truncated or altered, and a tokenizer that is not
    known here.
    """
    container = read_container(path)
    try:
        config = llama.config_from_hf(config_json(container))
        weights = llama.weights_from_hf(_weights(container, config), config)
        tokenizer = tokenizer_of(_words(container.metadata))
    except MissingLibraryError:
        raise
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from None
    require_ids(config, tokenizer, where=str(path))
    return Foreign("Llama", config, weights, tokenizer)


def format_of_file(path: Path) -> GGUFFormat:
    """What a file says its matrices are; where that is none of the formats written here, the coarsest of them."""
    gguf = require("gguf", extra="export", purpose="reading GGUF")
    said = read_container(path).metadata.get("general.file_type")
    for word, name in FILE_TYPES.items():
        if gguf.LlamaFileType[name] == said:
            return word
    return "q4_0"


def _weights(container: Container, config: DecoderConfig) -> dict[str, Tensor]:
    """By Hugging Face's names."""
    gguf = require("gguf", extra="export", purpose="reading GGUF")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    expected = llama.weights_to_hf(on_meta(config).state_dict(), config)
    theirs = {names.get_name(name, try_suffixes=(".weight", ".bias")): name for name in expected}
    _require_fit(container.tensors, {name: tuple(expected[theirs[name]].shape) for name in theirs})
    return {
        theirs[name]: _in_halves(theirs[name], stored.dequantized(name), config)
        for name, stored in container.tensors.items()
    }


def _require_fit(found: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]]) -> None:
    faults = [f"{name}: is missing" for name in expected if name not in found]
    faults += [f"{name}: is no tensor of the Llama family" for name in found if name not in expected]
    faults += [
        f"{name}: is {list(found[name].shape)}, and the file's own numbers say {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    if faults:
        raise CheckpointError(f"{len(faults)} tensors do not fit:\n  " + "\n  ".join(faults))


def _in_halves(name: str, tensor: Tensor, config: DecoderConfig) -> Tensor:
    if ".q_proj." in name:
        return separate(tensor, config.num_heads)
    return separate(tensor, config.kv_heads) if ".k_proj." in name else tensor


def _words(metadata: dict[str, Any]) -> Words:
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise CheckpointError(
            f"tokenizer.ggml.model: {model!r} cannot be read here, only 'gpt2' (byte-level BPE); import the hf "
            "directory of this model, which has its tokenizer.json"
        )
    tokens = _list(metadata, "tokens", str, default=None)
    end = metadata.get("tokenizer.ggml.eos_token_id")
    return Words(
        rule=str(metadata.get("tokenizer.ggml.pre", "default")),
        tokens=tokens,
        types=_list(metadata, "token_type", int, default=[NORMAL] * len(tokens)),
        merges=_list(metadata, "merges", str, default=[]),
        end=end if isinstance(end, int) and 0 <= end < len(tokens) else None,
    )


def _list(metadata: dict[str, Any], name: str, kind: type, *, default: list[Any] | None) -> list[Any]:
    found = metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise CheckpointError(f"tokenizer.ggml.{name}: a list of {kind.__name__} is needed")
    return found
