"""A model as one GGUF file: numbers, tokenizer and tensors, in float or quantised by the gguf package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pellucid.errors import ConfigError
from pellucid.interop.families import find_family
from pellucid.interop.gguf.architectures import Architecture, architecture_of
from pellucid.interop.gguf.formats import FILE_TYPES, GGUFFormat, encoded, format_of
from pellucid.interop.gguf.metadata import frequency_factors, metadata
from pellucid.interop.gguf.words import Words, words_of
from pellucid.interop.huggingface import require_ids
from pellucid.model import DecoderConfig, Transformer
from pellucid.runtime.extras import require
from pellucid.runtime.files import storage_errors
from pellucid.tokenizers import Tokenizer


def write_gguf(
    path: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    number_format: GGUFFormat = "f16",
    name: str = "pellucid",
) -> None:
    """Write the file.

    Raises ConfigError or TokenizerError, before anything is written, for what llama.cpp cannot be told, and
    CheckpointError where the tokenizer has ids that the model does not know. Writing aside is the caller's part.
    """
    gguf = require("gguf", extra="export", purpose="exporting to GGUF")
    family = find_family(model.config)
    architecture = architecture_of(family, model.config)
    config = cast(DecoderConfig, model.config)
    assert config.vocab_size is not None
    require_ids(config, tokenizer, where="GGUF")
    words = words_of(tokenizer, config.vocab_size)
    theirs = family.maps.config_to_hf(config)
    weights = family.maps.weights_to_hf(model.state_dict(), config)
    tensors = _tensors(gguf, architecture, weights, config, theirs)
    with storage_errors(path):
        writer = gguf.GGUFWriter(path, architecture.name)
        try:
            writer.add_name(name)
            writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[number_format]])
            if number_format.startswith("q"):
                writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_vocab_size(config.vocab_size)
            for key, value in metadata(theirs, config).items():
                _add(writer, f"{architecture.name}.{key}", value)
            _add_words(writer, words)
            for tensor_name, tensor in tensors.items():
                kind = format_of(
                    tensor_name, tuple(tensor.shape), number_format, is_tied=config.tie_embeddings
                )
                array = encoded(gguf, tensor_name, tensor, kind)
                writer.add_tensor(tensor_name, array, raw_dtype=gguf.GGMLQuantizationType[kind])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _tensors(
    gguf: Any,
    architecture: Architecture,
    weights: dict[str, Tensor],
    config: DecoderConfig,
    theirs: dict[str, Any],
) -> dict[str, Tensor]:
    """By llama.cpp's names, as it wants them."""
    arch = next(arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == architecture.name)
    names = gguf.get_tensor_name_map(arch, config.num_layers)
    found: dict[str, Tensor] = {}
    for name, tensor in _experts_together(weights).items():
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ConfigError(f"GGUF: the gguf package has no name for {name} in {architecture.name}")
        found[known] = architecture.convert(name, tensor, theirs)
    if (factors := frequency_factors(config)) is not None:
        found["rope_freqs.weight"] = factors
    return found


def _experts_together(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mixtral's matrices, a tensor an expert, as stacks [experts, out, in]."""
    stacks: dict[str, dict[int, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        before, found, after = name.partition(".experts.")
        if not found:
            others[name] = tensor
            continue
        expert, _, matrix = after.partition(".")
        stacks.setdefault(f"{before}.experts.{matrix}", {})[int(expert)] = tensor
    together = {name: torch.stack([stack[n] for n in sorted(stack)]) for name, stack in stacks.items()}
    return others | together


def _add(writer: Any, key: str, value: float | str) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)


def _add_words(writer: Any, words: Words) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.rule)
    writer.add_token_list(list(words.tokens))
    writer.add_token_types(list(words.types))
    writer.add_token_merges(list(words.merges))
    if words.end is not None:
        writer.add_bos_token_id(words.end)
        writer.add_eos_token_id(words.end)
        writer.add_pad_token_id(words.end)
    writer.add_add_bos_token(False)
