"""Directories that are damaged, foreign or malicious: one clear error each, and nothing is written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.config import from_union
from pellucid.errors import CheckpointError, ConfigError, ParityError, TokenizerError, UserError
from pellucid.interop.exchange import import_model
from pellucid.interop.huggingface import read_hf, write_hf
from pellucid.model import ModelConfig
from pellucid.tokenizers import build

INDEX = "model.safetensors.index.json"
SHAPE = {"d_model": 16, "num_heads": 2, "max_seq_len": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_layers": 2},
    "qwen3": {"num_layers": 2, "attention": {"qk_norm": True}},
    "mixtral": {"num_layers": 2, "feed_forward": {"kind": "moe", "num_experts": 2, "top_k": 1}},
    "gpt2": {
        "num_layers": 2,
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "approximate": True},
        "bias": True,
    },
    "gemma2": {
        "num_layers": 2,
        "block": "sandwich_norm",
        "feed_forward": {"kind": "geglu"},
        "scale_embeddings": True,
        "attention": {"window": 8, "window_pattern": "LG"},
    },
    "t5": {
        "kind": "encoder_decoder",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "position": {"kind": "t5"},
        "feed_forward": {"kind": "geglu", "approximate": True},
        "attention": {"scale": 1.0},
        "tie_embeddings": False,
    },
}

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Write:
    tokenizer = build({"kind": "gpt2", "max_ranks": 300})
    folder = tmp_path_factory.mktemp("written")

    def write(model: str = "llama", *, shard_bytes: int = 1 << 30) -> Path:
        directory = folder / f"{model}-{shard_bytes}"
        if not directory.exists():
            tree = {"kind": "decoder", "vocab_size": tokenizer.vocab_size, **SHAPE, **MODELS[model]}
            directory.mkdir()
            write_hf(
                directory, from_union(ModelConfig, tree).build(seed=1), tokenizer, shard_bytes=shard_bytes
            )
        return directory

    return write


@pytest.fixture
def write(_written: Write, tmp_path: Path) -> Write:
    """A good directory of a tiny model, of one's own: to be spoilt."""
    return lambda *words, **settings: shutil.copytree(_written(*words, **settings), tmp_path / "model")


@pytest.fixture
def sharded(write: Write) -> Path:
    """A good directory whose weights are in several files."""
    return write(shard_bytes=8000)


def refused(directory: Path, kind: type[UserError]) -> str:
    """What import says to it, which leaves everything as it was."""
    before = sorted(directory.parent.rglob("*"))
    with pytest.raises(kind) as error:
        import_model(directory, directory.parent / "out")
    assert type(error.value) is kind
    assert sorted(directory.parent.rglob("*")) == before
    message = str(error.value)
    assert message.startswith(str(directory)), message
    return message.removeprefix(str(directory))


def change(file: Path, **fields: Any) -> None:
    """Other fields in a file of JSON."""
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **fields}), encoding="utf-8")


# config.json ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["mamba", "", None, ["llama"], {"llama": 1}, 7])
def test_an_unknown_architecture(write: Write, named: object):
    directory = write()
    change(directory / "config.json", model_type=named)
    message = refused(directory, CheckpointError)
    assert (
        f"model_type: {named!r} is no family that can be read here (these can: llama, gpt2, qwen3" in message
    )


def test_no_directory_and_no_config(write: Write, tmp_path: Path):
    assert refused(tmp_path / "gone", CheckpointError) == ": no such directory"
    directory = write()
    (directory / "config.json").unlink()
    assert (
        refused(directory, CheckpointError) == ": no config.json in it, so it is no model of Hugging Face's"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated or altered (Expecting value"),
        (b'{"model_type": "llama", ', "truncated or altered"),
        (b"\xff\xfe\x00", "truncated or altered"),
        (b"[" * 100_000, "truncated or altered (maximum recursion depth"),
        (b"[]", "an object is wanted, not a list"),
        (b'"llama"', "an object is wanted, not a str"),
        (b"null", "an object is wanted, not a NoneType"),
    ],
)
def test_a_config_that_is_no_object(write: Write, content: bytes, words: str):
    directory = write()
    (directory / "config.json").write_bytes(content)
    assert refused(directory, CheckpointError).startswith(f"/config.json: {words}")


NUMBERS = {
    "llama": ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    "qwen3": ("num_hidden_layers", "intermediate_size", "vocab_size"),
    "mixtral": ("num_hidden_layers", "num_local_experts", "intermediate_size"),
    "gpt2": ("n_layer", "n_embd", "n_head", "n_inner", "n_positions"),
    "gemma2": ("num_hidden_layers", "head_dim"),
    "t5": ("num_layers", "num_decoder_layers", "d_model", "d_kv", "d_ff", "relative_attention_num_buckets"),
}


@pytest.mark.timeout(60)  # to build a model so large, even without memory, takes hours
@pytest.mark.parametrize("number", [10**12, 2**31 - 1, 2**70])
@pytest.mark.parametrize(
    ("model", "field"), [(model, field) for model, all_ in NUMBERS.items() for field in all_]
)
def test_absurd_numbers_are_refused_and_not_built(write: Write, model: str, field: str, number: int):
    directory = write(model)
    change(directory / "config.json", **{field: number})
    message = refused(directory, CheckpointError)
    assert field in message or "do not fit the config" in message


@pytest.mark.parametrize("number", [0, -1, 1.5, "many", None, [], {}, True, float("nan")])
@pytest.mark.parametrize("model", MODELS)
def test_a_number_of_layers_that_is_none(write: Write, model: str, number: object):
    directory = write(model)
    field = {"gpt2": "n_layer", "t5": "num_layers"}.get(model, "num_hidden_layers")
    change(directory / "config.json", **{field: number})
    refused(directory, CheckpointError)


def test_numbers_that_do_not_fit_each_other(write: Write):
    directory = write()
    change(directory / "config.json", num_key_value_heads=3)
    assert "num_kv_heads" in refused(directory, ConfigError)


@pytest.mark.parametrize("word", [[], {}, 3, None, "swish"])
def test_an_activation_without_a_meaning(write: Write, word: object):
    directory = write("gpt2")
    change(directory / "config.json", activation_function=word)
    assert f"activation_function: {word!r} cannot be read here, only 'gelu_new'" in refused(
        directory, CheckpointError
    )


def test_what_the_other_side_cannot_load_is_no_traceback(write: Write, tmp_path: Path):
    pytest.importorskip("transformers", reason="needs transformers")
    directory = write()
    change(directory / "config.json", attention_dropout="much")
    with pytest.raises(
        ParityError, match=r"model: transformers [\d.]+ cannot use the model: .*attention_dropout"
    ):
        import_model(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_in_a_directory_is_not_run(write: Write, tmp_path: Path):
    pytest.importorskip("transformers", reason="needs transformers")
    directory = write()
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\n")
    names = ("AutoConfig", "AutoModelForCausalLM")
    change(directory / "config.json", auto_map=dict.fromkeys(names, "evil.Evil"))
    change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    assert import_model(directory, tmp_path / "out").passed
    assert not (tmp_path / "exploded").exists()


# Weights ----------------------------------------------------------------------------------------------


def spoil(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def test_missing_and_unexpected_tensors_and_other_shapes_are_all_named(write: Write):
    directory = write()
    spoil(directory, lambda tensors: tensors.update({"model.norm.bias": tensors.pop("model.norm.weight")}))
    spoil(directory, lambda tensors: tensors.update({"model.embed_tokens.weight": torch.zeros(9, 16)}))
    message = refused(directory, CheckpointError)
    assert "missing: model.norm.weight [16]" in message
    assert "unexpected: model.norm.bias [16]" in message
    assert "wrong shape: model.embed_tokens.weight is [9, 16], the config says [301, 16]" in message


def test_a_truncated_file_is_refused_wherever_it_ends(write: Write):
    directory = write()
    whole = (directory / "model.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 9, 100, 500, len(whole) // 2, len(whole) - 4, len(whole) - 1):
        (directory / "model.safetensors").write_bytes(whole[:length])
        message = refused(directory, CheckpointError)
        assert message.startswith("/model.safetensors: truncated or not a safetensors file"), length


@pytest.mark.parametrize("length", [10**8, 2**40, 2**64 - 1])
def test_a_header_that_claims_to_be_huge(write: Write, length: int):
    directory = write()
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(length.to_bytes(8, "little") + whole[8:])
    assert "truncated or not a safetensors file" in refused(directory, CheckpointError)


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.ckpt", "x.pth"]
)
def test_pickles_are_refused_and_not_opened(write: Write, tmp_path: Path, name: str):
    directory = write()
    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    message = refused(directory, CheckpointError)
    assert message.startswith(f": {name}: is a pickle, which can run any program")
    assert message.endswith(".save_pretrained(OTHER) writes safetensors")


def test_a_pickle_beside_good_weights_is_left_alone(write: Write, tmp_path: Path):
    directory = write()
    (directory / "training_args.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert read_hf(directory).family == "Llama"
    assert not (tmp_path / "exploded").exists()


def test_no_weights_at_all(write: Write):
    directory = write()
    (directory / "model.safetensors").unlink()
    assert refused(directory, CheckpointError).startswith(
        ": there are no weights in it (no model.safetensors, no"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)  # a pipe is read for ever
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_read(write: Write, name: str):
    directory = write()
    (directory / name).unlink()
    os.mkfifo(directory / name)
    assert " in it" in refused(directory, CheckpointError)


# The index --------------------------------------------------------------------------------------------


def test_a_good_index_is_read(sharded: Path):
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert read_hf(sharded).family == "Llama"


def test_a_truncated_index_is_refused_wherever_it_ends(sharded: Path):
    whole = (sharded / INDEX).read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 2):
        (sharded / INDEX).write_bytes(whole[:length])
        assert refused(sharded, CheckpointError).startswith(f"/{INDEX}: truncated or altered ("), length


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": 3}', "[" * 100_000]
)
def test_an_index_that_is_none(sharded: Path, content: str):
    (sharded / INDEX).write_text(content)
    assert refused(sharded, CheckpointError).startswith(f"/{INDEX}: truncated or altered (")


EVIL = [
    "../model.safetensors",
    "../../etc/passwd",
    "/etc/passwd",
    "/abs.safetensors",
    "sub/model.safetensors",
    "./../model.safetensors",
    "..\\model.safetensors",
    "C:\\model.safetensors",
    "C:model.safetensors",
    "\\\\host\\share\\model.safetensors",
    "model.safetensors:stream",
    "file:///model.safetensors",
    "http://127.0.0.1/model.safetensors",
    "model.bin",
    ".safetensors",
    "",
    "nul\0.safetensors",
    "new\nline.safetensors",
    "\x1b[2J.safetensors",
    "\ud800.safetensors",
    "a" * 5000 + ".safetensors",
    7,
    None,
    ["model.safetensors"],
]


@pytest.mark.parametrize("name", EVIL, ids=range(len(EVIL)))
def test_an_index_names_files_of_its_directory_only(sharded: Path, name: object):
    save_file({"x": torch.zeros(1)}, sharded.parent / "model.safetensors")
    places = json.loads((sharded / INDEX).read_bytes())["weight_map"]
    change(sharded / INDEX, weight_map={**places, "model.norm.weight": name})
    message = refused(sharded, CheckpointError)
    assert message.startswith(
        f"/{INDEX}: names the file {str(name)[:200]!r}; only .safetensors files of the directory"
    )
    assert message.isprintable()


def first_shard(directory: Path) -> Path:
    return min(directory.glob("model-*.safetensors"))


def links(path: Path, target: Path | str) -> None:
    try:
        path.symlink_to(target)
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")


@pytest.mark.parametrize("steps", [1, 2])
def test_a_link_out_of_the_directory_is_refused(sharded: Path, tmp_path: Path, steps: int):
    shard = first_shard(sharded)
    outside = shard.rename(tmp_path / "elsewhere.safetensors")
    links(shard if steps == 1 else sharded / "between", outside)
    if steps == 2:
        links(shard, "between")
    message = refused(sharded, CheckpointError)
    assert message.startswith(f"/{INDEX}: names {shard.name}, a link out of the directory")


def test_a_link_within_the_directory_is_read(sharded: Path):
    shard = first_shard(sharded)
    shard.rename(sharded / "other")
    links(shard, "other")
    assert read_hf(sharded).family == "Llama"


def test_the_cache_of_the_hub_is_read_although_its_files_are_links(sharded: Path, tmp_path: Path):
    snapshot = tmp_path / "models--me--mine/snapshots/0123abcd"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--me--mine/blobs"
    blobs.mkdir()
    for number, file in enumerate(sharded.iterdir()):
        file.rename(blobs / str(number))
        links(snapshot / file.name, f"../../blobs/{number}")
    assert read_hf(snapshot).family == "Llama"
    shard = first_shard(snapshot)
    shard.unlink()
    links(shard, "../../../elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a link out of the directory"):
        read_hf(snapshot)


def test_a_link_in_a_circle_is_no_file(sharded: Path):
    shard = first_shard(sharded)
    shard.unlink()
    links(shard, shard.name)
    assert (
        refused(sharded, CheckpointError)
        == f"/{INDEX}: names {shard.name}, and there is no such file; fetch it, too"
    )


def test_a_missing_file_of_an_index(sharded: Path):
    shard = first_shard(sharded)
    shard.unlink()
    assert (
        refused(sharded, CheckpointError)
        == f"/{INDEX}: names {shard.name}, and there is no such file; fetch it, too"
    )


def test_a_truncated_file_of_an_index(sharded: Path):
    shard = first_shard(sharded)
    shard.write_bytes(shard.read_bytes()[:-1])
    assert refused(sharded, CheckpointError).startswith(f"/{shard.name}: truncated or not a safetensors file")


def test_tensors_that_are_not_where_the_index_says(sharded: Path):
    places = json.loads((sharded / INDEX).read_bytes())["weight_map"]
    other = max(places.values())
    change(sharded / INDEX, weight_map={**places, "model.embed_tokens.weight": other})
    message = refused(sharded, CheckpointError)
    assert f"/{INDEX}: says that {other} has 'model.embed_tokens.weight', and it has not" in message


def test_a_tensor_in_two_files_of_an_index(sharded: Path):
    shard = first_shard(sharded)
    tensors = load_file(shard)
    other = max(sharded.glob("model-*.safetensors"))
    save_file({**load_file(other), **tensors}, other)
    message = refused(sharded, CheckpointError)
    assert message.startswith(
        f"/{other.name}: has {min(tensors)!r}, which an earlier file of {INDEX} has, too"
    )


# The tokenizer ----------------------------------------------------------------------------------------


def test_a_tokenizer_with_more_ids_than_the_model(write: Write, tmp_path: Path):
    directory = write()
    larger = build({"kind": "gpt2", "max_ranks": 400})
    (directory / "tokenizer.json").write_text(json.dumps(larger.tokenizer_json()))
    message = refused(directory, CheckpointError)
    assert message == ": its tokenizer has 401 ids and its model only 301: they do not belong together"


def test_no_tokenizer(write: Write):
    directory = write()
    (directory / "tokenizer.json").unlink()
    assert refused(directory, TokenizerError).startswith(": no tokenizer.json in this directory")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"model": 3}', "[" * 100_000, '{"added_tokens": [3]}', '{"added_tokens": 3}'],
)
def test_a_tokenizer_that_is_none(write: Write, content: str):
    directory = write()
    (directory / "tokenizer.json").write_text(content)
    assert refused(directory, TokenizerError).startswith("/tokenizer.json: ")


def test_an_id_that_would_fill_the_memory(write: Write):
    directory = write()
    tree = json.loads((directory / "tokenizer.json").read_bytes())
    tree["model"]["vocab"]["last"] = 2**32 - 1
    (directory / "tokenizer.json").write_text(json.dumps(tree))
    message = refused(directory, TokenizerError)
    assert message == "/tokenizer.json: an id of 4,294,967,295 among 302 tokens; ids are counted from 0"


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]"])
def test_settings_of_a_tokenizer_that_are_none(write: Write, content: str):
    directory = write()
    (directory / "tokenizer_config.json").write_text(content)
    assert refused(directory, TokenizerError).startswith("/tokenizer_config.json: ")
