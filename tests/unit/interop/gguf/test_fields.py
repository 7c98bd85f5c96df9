"""Files that are whole but say what cannot be: refused, with the key's name, before anything is made of it."""

import gguf
import numpy as np
import pytest

from pellucid.errors import CheckpointError
from pellucid.interop.gguf import read_gguf


def rewritten(source, path, *, numbers=None, without=(), tensors=None):
    """A copy with other values, or without some keys and tensors; a tensor may be replaced, or added."""
    reader = gguf.GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = gguf.GGUFWriter(path, fields["general.architecture"].contents())
    for name, field in fields.items():
        if name != "general.architecture" and name not in without:
            sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            value = (numbers or {}).get(name, field.contents())
            kind = gguf.GGUFValueType.get_type(value) if name in (numbers or {}) else field.types[0]
            writer.add_key_value(name, value, kind, sub)
    for name in (numbers or {}).keys() - fields.keys():
        writer.add_key_value(name, numbers[name], gguf.GGUFValueType.get_type(numbers[name]))
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors if tensor.name not in without}
    for name, array in (stored | (tensors or {})).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def altered(written, tmp_path):
    """`altered(…)` as `rewritten`, of a Llama."""
    return lambda **changes: rewritten(written("llama"), tmp_path / "altered.gguf", **changes)


def test_a_copy_without_changes_is_read(altered):
    assert read_gguf(altered()).config.d_model == 32


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llama.embedding_length", 2**31 - 1, "embedding_length is"),
        ("llama.block_count", 2**31 - 1, "there are tensors of 2 blocks"),
        ("llama.block_count", 1, "there are tensors of 2 blocks"),
        ("llama.block_count", "two", "a whole number above 0"),
        ("llama.attention.head_count", 4, "blk.0.attn_q.weight: must have 64 rows"),
        ("llama.attention.head_count", 0, "above 0 is needed, not 0"),
        ("llama.attention.head_count_kv", 2, "blk.0.attn_k.weight: must have 32 rows"),
        ("llama.attention.key_length", 8, "value_length"),
        ("llama.rope.dimension_count", 8, "rope.dimension_count"),
        ("llama.feed_forward_length", 2**31 - 1, "blk.0.ffn_gate.weight: must have"),
        ("llama.context_length", -1, "above 0 is needed"),
        ("llama.attention.layer_norm_rms_epsilon", "small", "a number is needed"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "a number is needed"),
        ("llama.rope.freq_base", 0.5, "theta"),
        ("llama.rope.scaling.type", "longrope", "'longrope' cannot be read"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("tokenizer.ggml.model", "llama", "'llama' cannot be read here, only 'gpt2'"),
        ("tokenizer.ggml.pre", "tekken", "'tekken' is no rule"),
        ("tokenizer.ggml.tokens", 5, "a list of str"),
        ("tokenizer.ggml.merges", 5, "a list of str"),
    ],
)
def test_refused(altered, key, value, words):
    with pytest.raises(CheckpointError, match=words) as refused:
        read_gguf(altered(numbers={key: value}))
    assert "altered.gguf" in str(refused.value)


@pytest.mark.parametrize(
    "missing",
    [
        "llama.block_count",
        "llama.embedding_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.feed_forward_length",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "token_embd.weight",
        "blk.0.attn_q.weight",
        "blk.1.ffn_down.weight",
        "output_norm.weight",
    ],
)
def test_what_is_missing_is_named(altered, missing):
    with pytest.raises(CheckpointError, match=missing):
        read_gguf(altered(without=(missing,)))


def test_what_has_a_default_may_be_missing(altered):
    names = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.freq_base")
    with pytest.raises(
        CheckpointError, match="attn_k"
    ):  # by default as many as there are queries, and here half
        read_gguf(altered(without=tuple(f"llama.{name}" for name in names)))
    config = read_gguf(altered(without=tuple(f"llama.{name}" for name in names[1:]))).config
    assert (config.head_size, config.position.theta) == (16, 10_000.0)


def test_tensors_of_another_shape_or_name_are_refused(altered):
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight: is \[3, 32\]"):
        read_gguf(altered(tensors={"blk.1.ffn_up.weight": np.zeros((3, 32), np.float32)}))
    with pytest.raises(CheckpointError, match=r"attn_sinks\.weight: is no tensor of the Llama"):
        read_gguf(altered(tensors={"blk.1.attn_sinks.weight": np.zeros(32, np.float32)}))
    with pytest.raises(CheckpointError, match="rope_freqs"):
        read_gguf(altered(tensors={"rope_freqs.weight": np.ones(8, np.float32)}))


def test_other_architectures_are_refused_by_name(written):
    with pytest.raises(CheckpointError, match="architecture 'gpt2': only GGUF files of the Llama family"):
        read_gguf(written("gpt2"))


def test_more_words_than_rows_are_refused(altered):
    with pytest.raises(CheckpointError, match="301 ids and its model only 300"):
        read_gguf(altered(tensors={"token_embd.weight": np.zeros((300, 32), np.float32)}))
