"""A checkpoint goes out and comes back the same, the other side reads it, and a receipt notices where it would not."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid import checkpoint
from pellucid.checkpoint import Contents
from pellucid.config import from_tree, to_tree
from pellucid.errors import ConfigError, ParityError, StorageError
from pellucid.interop import exchange
from pellucid.interop import receipt as receipt_module
from pellucid.interop.exchange import export_gguf, export_hf, export_weights, import_model
from pellucid.interop.families import find_family
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.runtime.files import sha256_file
from pellucid.tokenizers import build

SHAPE = {"d_model": 32, "num_heads": 4, "max_seq_len": 48}
DECODERS = {
    "Llama": {"num_kv_heads": 2},
    "Qwen3": {"attention": {"qk_norm": True}, "tie_embeddings": False},
    "GPT-2": {
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "approximate": True},
        "bias": True,
    },
    "Mixtral": {"feed_forward": {"kind": "moe", "num_experts": 4, "top_k": 2}},
    "Gemma-2": {
        "block": "sandwich_norm",
        "feed_forward": {"kind": "geglu"},
        "scale_embeddings": True,
        "attention": {"softcap": 50.0, "window": 16, "window_pattern": "LG"},
        "logit_softcap": 30.0,
    },
}
T5 = {
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "position": {"kind": "t5"},
    "feed_forward": {"kind": "geglu", "approximate": True},
    "attention": {"scale": 1.0},
    "tie_embeddings": False,
}
FAMILIES = [*DECODERS, "T5 v1.1"]


@pytest.fixture(scope="module")
def tokenizer():
    return build({"kind": "gpt2", "max_ranks": 300, "special_tokens": ["<extra_id_0>"]})


@pytest.fixture
def write(tokenizer, workdir):
    """A checkpoint of a family's tiny random model."""

    def made(family="Llama", *, tokenizer=tokenizer, **changes):
        size = {"vocab_size": tokenizer.vocab_size, **SHAPE, **changes}
        if family == "T5 v1.1":
            config = from_tree(EncoderDecoderConfig, {**size, **T5, "start_id": tokenizer.end_of_text_id})
        else:
            config = from_tree(DecoderConfig, {**size, "num_layers": 2, **DECODERS[family]})
        model = config.build(seed=1)
        with torch.no_grad():
            for parameter in model.parameters():  # far from their initial values, so that every one matters
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        path = workdir / f"a {family}"
        checkpoint.save(path, Contents({"model": to_tree(config)}, dict(model.named_parameters()), tokenizer))
        return path

    return made


def weights(path):
    return checkpoint.load(path).model.state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_out_and_back_is_the_same_to_the_bit_and_transformers_agrees(write, workdir, family):
    path = write(family)
    receipt = export_hf(path, workdir / "out")
    assert receipt.passed
    assert receipt.other.startswith("transformers ")
    assert {finding.what for finding in receipt.findings} == {
        *("weights, read back here", "tokenizer ids", "decoded text", "end of text"),
        *("logits", "perplexity", "greedy ids"),
    }
    assert find_family(checkpoint.load(path).model.config).name == family
    assert import_model(workdir / "out", workdir / "back").passed
    before, after = weights(path), weights(workdir / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    texts = ["To be, or not", "ünï <|endoftext|>"]
    ids = [[checkpoint.load(p).tokenizer.encode(t, allow_special=True).tolist() for t in texts]
           for p in (path, workdir / "back")]  # fmt: skip
    assert ids[0] == ids[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("number_format", ["fp16", "bf16"])
def test_narrow_weights_are_the_same_model_rounded(write, workdir, number_format, family):
    receipt = export_hf(write(family), workdir / "out", weight_format=number_format)
    assert receipt.passed
    dtypes = {tensor.dtype for tensor in load_file(workdir / "out/model.safetensors").values()}
    assert dtypes == {{"fp16": torch.float16, "bf16": torch.bfloat16}[number_format]}
    assert json.loads((workdir / "out/config.json").read_text())["dtype"] in ("float16", "bfloat16")


def test_large_weights_are_several_files_and_come_back(write, workdir):
    path = write()
    assert export_hf(path, workdir / "out", shard_bytes=20_000).passed
    assert len(list((workdir / "out").glob("model-*.safetensors"))) > 2
    import_model(workdir / "out", workdir / "back")
    assert all(torch.equal(tensor, weights(workdir / "back")[name]) for name, tensor in weights(path).items())


def test_the_directory_says_what_it_is(write, workdir):
    export_hf(write(), workdir / "out")
    names = {path.name for path in (workdir / "out").iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "README.md", "parity.json",
    }  # fmt: skip
    receipt = json.loads((workdir / "out/parity.json").read_text())
    assert receipt["passed"] is True
    assert receipt["files"] == {
        name: sha256_file(workdir / "out" / name) for name in names - {"README.md", "parity.json"}
    }
    assert "same     logits" in (workdir / "out/README.md").read_text()


@pytest.mark.parametrize("alphabet", ["\n !,.abcdefghijklmnopqrstuvwxyzé日🙂", "01"])
def test_a_tokenizer_of_characters_is_compared_by_those_that_it_knows(write, workdir, alphabet):
    receipt = export_hf(write(tokenizer=build({"kind": "char", "alphabet": alphabet})), workdir / "out")
    (ids,) = (finding for finding in receipt.findings if finding.what == "tokenizer ids")
    assert re.fullmatch(r"0 of [2-8] texts differ", ids.found)
    assert import_model(workdir / "out", workdir / "back").passed


# What a receipt must notice -----------------------------------------------------------------------------


def spoil_weights(change):
    """Write weights that are not the model's."""
    honest = exchange.write_hf

    def write(directory, *words, **settings):
        family = honest(directory, *words, **settings)
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return family

    return write


def flip(tensors):
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] *= -1


def interleave(tensors):
    """The other rotary layout."""
    for name, tensor in tensors.items():
        if ".q_proj." in name or ".k_proj." in name:
            pairs = tensor.unflatten(0, (-1, 2, 4)).transpose(1, 2)
            tensors[name] = pairs.reshape(tensor.shape).contiguous()


@pytest.mark.parametrize("change", [flip, interleave])
def test_other_weights_are_noticed_and_nothing_is_left(write, workdir, monkeypatch, change):
    path = write()
    monkeypatch.setattr(exchange, "write_hf", spoil_weights(change))
    with pytest.raises(
        ParityError, match=r"does not read the same model:\n  weights, [\s\S]*\n  logits: differ by"
    ):
        export_hf(path, workdir / "out")
    assert not (workdir / "out").exists()


def test_another_pre_tokenizer_is_noticed(write, workdir, monkeypatch):
    honest = exchange.write_hf

    def write_other(directory, *words, **settings):
        family = honest(directory, *words, **settings)
        tree = json.loads((directory / "tokenizer.json").read_text())
        digits = {"type": "Digits", "individual_digits": True}
        tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tree["pre_tokenizer"]]}
        (directory / "tokenizer.json").write_text(json.dumps(tree))
        return family

    monkeypatch.setattr(exchange, "write_hf", write_other)
    with pytest.raises(ParityError, match="tokenizer ids: "):
        export_hf(write(tokenizer=build({"kind": "gpt2", "max_ranks": 5000})), workdir / "out")
    assert not (workdir / "out").exists()


def write_with(change):
    """Write a directory, one file of which says something else."""
    honest = exchange.write_hf

    def write(directory, *words, **settings):
        family = honest(directory, *words, **settings)
        for name, new in change.items():
            content = json.loads((directory / name).read_text())
            (directory / name).write_text(json.dumps(content | new))
        return family

    return write


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tokenizer_config.json": {"eos_token": "<extra_id_0>"}}, "end of text"),
        ({"tokenizer.json": {"decoder": None}}, "decoded text"),
        ({"tokenizer.json": {"added_tokens": []}}, "tokenizer ids"),
        ({"config.json": {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}}, "logits"),
        ({"config.json": {"num_hidden_layers": "two"}}, "transformers .* cannot use the model"),
    ],
)
def test_what_else_the_files_can_get_wrong(write, workdir, monkeypatch, change, what):
    monkeypatch.setattr(exchange, "write_hf", write_with(change))
    with pytest.raises(ParityError, match=rf"{what}: "):
        export_hf(write(), workdir / "out")
    assert not (workdir / "out").exists()


def test_what_the_directory_asks_of_generation_is_no_difference(write, workdir):
    """Penalties and several ends of text are for users, not for a comparison."""
    export_hf(write(), workdir / "out")
    asked = {
        "repetition_penalty": 1.9,
        "no_repeat_ngram_size": 2,
        "eos_token_id": [1, 2, 300],
        "min_length": 9,
    }
    settings = workdir / "out/generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | asked))
    assert import_model(workdir / "out", workdir / "back").passed


@pytest.mark.parametrize(("family", "most"), [("Llama", 1), ("Llama", 2), ("T5 v1.1", 1), ("T5 v1.1", 8)])
def test_the_shortest_contexts_can_be_compared(write, workdir, family, most):
    assert export_hf(write(family, max_seq_len=most), workdir / "out").passed


def test_without_transformers_it_says_that_nothing_was_compared(write, workdir, monkeypatch):
    monkeypatch.setattr(exchange, "is_installed", lambda name: False)
    receipt = export_hf(write(), workdir / "out")
    assert receipt.lines()[1:] == ["not compared: transformers is not installed here"]
    stored = json.loads((workdir / "out/parity.json").read_text())
    assert stored["not_compared"]
    assert stored["passed"] is False
    assert "What was found when it was written:" in (workdir / "out/README.md").read_text()


def broken(*words, **settings):
    raise ImportError("libother.so: cannot open shared object file")


def test_a_transformers_too_old_or_broken_is_said(write, workdir, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    assert (
        export_hf(write(), workdir / "out").not_compared
        == "transformers 4.57.1 is here, and 5.5 or newer is needed"
    )
    monkeypatch.setattr(receipt_module, "require", broken)
    assert "transformers cannot be imported" in str(export_hf(write("GPT-2"), workdir / "other").not_compared)


@pytest.mark.parametrize("to", ["hf", "weights"])
def test_a_number_that_half_precision_cannot_hold_is_refused(write, workdir, to):
    loaded = checkpoint.load(write())
    with torch.no_grad():
        loaded.model.get_parameter("blocks.0.feed_forward.up.weight")[1, 2] = 1e5
    checkpoint.save(
        workdir / "large", Contents(loaded.config, dict(loaded.model.named_parameters()), loaded.tokenizer)
    )
    export = {"hf": export_hf, "weights": export_weights}[to]
    with pytest.raises(
        ConfigError, match=r"has numbers up to 1e\+05, which fp16 cannot hold; take bf16 or fp32"
    ):
        export(workdir / "large", workdir / "out", weight_format="fp16")
    assert not (workdir / "out").exists()
    export(workdir / "large", workdir / "out", weight_format="bf16")


# The card -----------------------------------------------------------------------------------------------


def test_the_card_says_where_a_model_comes_from(write, workdir):
    export_hf(write(), workdir / "out", licence="apache-2.0")
    card = (workdir / "out/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n")
    assert "of unrecorded origin" in card  # a checkpoint of no run
    import_model(workdir / "out", workdir / "back")
    export_hf(workdir / "back", workdir / "again")
    card = (workdir / "again/README.md").read_text()
    assert "imported from out; written by Pellucid" in card
    assert "license" not in card


def test_the_card_takes_no_file_of_the_same_name_and_no_path_of_this_machine(write, workdir):
    (workdir / "data.json").write_text('{"secret": 1}')
    path = write()
    loaded = checkpoint.load(path)
    config = {**loaded.config, "data": {"path": "/home/somebody/stories.txt"}}
    checkpoint.save(
        workdir / "mine/x", Contents(config, dict(loaded.model.named_parameters()), loaded.tokenizer)
    )
    export_hf(workdir / "mine/x", workdir / "out")
    card = (workdir / "out/README.md").read_text()
    assert "secret" not in card
    assert "somebody" not in card
    assert "`stories.txt`" in card


# What cannot go out -------------------------------------------------------------------------------------


def test_a_model_of_no_family_is_refused_with_the_nearest_one(write, workdir):
    path = write(position={"kind": "alibi"})
    with pytest.raises(ConfigError) as error:
        export_hf(path, workdir / "out")
    said = str(error.value)
    assert "The nearest is Llama, but for:\n  position.kind: must be 'rope', not 'alibi'" in said
    assert "--to weights" in said
    assert not (workdir / "out").exists()


def test_what_is_there_already_is_not_written_over(write, workdir):
    (workdir / "out").mkdir()
    (workdir / "out/mine").write_text("x")
    other = write("GPT-2")
    for write_over in (
        lambda: export_hf(other, workdir / "out"),
        lambda: export_gguf(other, workdir / "out"),
        lambda: export_weights(other, workdir / "out"),
        lambda: import_model(workdir / "not looked at", workdir / "out"),
    ):
        with pytest.raises(StorageError, match="out: is in the way; remove it or name another"):
            write_over()
    assert [path.name for path in (workdir / "out").iterdir()] == ["mine"]


# Weights alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number_format", "share"), [("fp32", 1.0), ("fp16", 0.5), ("bf16", 0.5)])
def test_weights_alone_are_a_checkpoint(write, workdir, number_format, share):
    path = write()
    export_weights(path, workdir / "out", weight_format=number_format)
    sizes = [(place / "model.safetensors").stat().st_size for place in (path, workdir / "out")]
    assert sizes[1] / sizes[0] == pytest.approx(share, abs=0.05)
    found, _ = checkpoint.find_checkpoint(workdir / "out")
    loaded = checkpoint.load(found)
    for name, tensor in weights(path).items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, rtol=1e-2, atol=1e-3)
