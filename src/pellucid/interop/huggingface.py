"""Directories of the Hugging Face ecosystem: config.json, safetensors, tokenizer files. Written and read by hand, so
that neither side needs transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from pellucid.checkpoint import WeightFormat, narrowed
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.families import Family, family_of, find_family
from pellucid.interop.safe_files import read_weights, write_weights
from pellucid.interop.sizes import require_sizes
from pellucid.model import ModelConfig, Transformer
from pellucid.runtime.precision import DTYPES
from pellucid.tokenizers import HuggingFaceConfig, Tokenizer
from pellucid.tokenizers.stored import TOKENIZER_JSON

CONFIG = "config.json"
SHARD_BYTES = 5_000_000_000
Tree = dict[str, Any]


@dataclass(frozen=True)
class Foreign:
    """A model as it came from another project's files: our config, our names of weights."""

    family: str
    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer


def write_hf(
    directory: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    weight_format: WeightFormat = "fp32",
    shard_bytes: int = SHARD_BYTES,
) -> Family:
    """Write what `from_pretrained` reads, without remote code; returns the family it was written as.

    The tokenizer's end of text begins and ends texts there, as it does here. Raises ConfigError where no family can
    express the model, and TokenizerError where tokenizer.json cannot express the tokenizer; then nothing is written.
    """
    family = find_family(model.config)
    config = family.maps.config_to_hf(model.config)
    ends = _ends(tokenizer, model)
    weights = family.maps.weights_to_hf(model.state_dict(), model.config)
    # Copies, because tensors that are views of a larger one are refused.
    narrow = {name: narrowed(name, tensor, weight_format) for name, tensor in weights.items()}
    dtype = str(DTYPES[weight_format]).removeprefix("torch.")
    tokenizer_tree = tokenizer.tokenizer_json()
    _write_json(directory / CONFIG, {**config, **ends, "dtype": dtype, "torch_dtype": dtype})
    _write_json(directory / "generation_config.json", ends)
    _write_json(directory / TOKENIZER_JSON, tokenizer_tree, indent=None)
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(tokenizer, model))
    write_weights(directory, narrow, shard_bytes=shard_bytes)
    return family


def read_hf(directory: Path) -> Foreign:
    """The model of such a directory. Raises CheckpointError or TokenizerError for what cannot be read here."""
    try:
        theirs = read_config(directory)
        family = family_of(theirs)
        tensors = read_weights(directory)
        require_sizes(theirs, tensors)
        config = family.maps.config_from_hf(theirs)
        tokenizer = HuggingFaceConfig(path=str(directory)).build()
        weights = family.maps.weights_from_hf(tensors, config)
    except (CheckpointError, ConfigError) as error:
        where = "" if str(directory) in str(error) else f"{directory}: "
        raise type(error)(f"{where}{error}") from None
    require_ids(config, tokenizer, where=str(directory))
    return Foreign(family.name, config, weights, tokenizer)


def read_config(directory: Path) -> Tree:
    """The content of config.json. Raises CheckpointError where there is none, or it is no object."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    file = directory / CONFIG
    if not file.is_file():
        raise CheckpointError(f"{directory}: no {CONFIG} in it, so it is no model of Hugging Face's")
    try:
        tree: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: truncated or altered ({error}); fetch it again") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{file}: an object is wanted, not a {type(tree).__name__}")
    return cast(Tree, tree)


def require_ids(config: ModelConfig, tokenizer: Tokenizer, *, where: str) -> None:
    """Raise CheckpointError where the tokenizer has ids that the model does not know."""
    if config.vocab_size is not None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{where}: its tokenizer has {tokenizer.vocab_size} ids and its model only {config.vocab_size}: they do "
            "not belong together"
        )


def _ends(tokenizer: Tokenizer, model: Transformer) -> Tree:
    """The ids by which generation begins and ends."""
    end = tokenizer.end_of_text_id
    ends: Tree = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    start = getattr(model, "start_id", None)
    return ends if start is None else {**ends, "decoder_start_token_id": start}


def _tokenizer_config(tokenizer: Tokenizer, model: Transformer) -> Tree:
    end = next(
        (t for t, number in tokenizer.special_tokens.items() if number == tokenizer.end_of_text_id), None
    )
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_seq_len,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
    }


def _write_json(path: Path, tree: Mapping[str, Any], *, indent: int | None = 2) -> None:
    path.write_text(json.dumps(tree, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
