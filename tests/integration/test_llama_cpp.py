"""GGUF files in llama.cpp itself: it reads the model that we wrote, and a receipt notices when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import checkpoint
from pellucid.config import from_tree, merge, to_tree
from pellucid.errors import ParityError
from pellucid.interop import exchange
from pellucid.interop.gguf import architectures, rounded, words, write_gguf
from pellucid.interop.gguf.rules import RULES
from pellucid.interop.llama_cpp_side import TOLERANCES, InLlamaCpp
from pellucid.interop.receipt import ADVERSARIAL, LENGTH, Here, compare
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.tokenizers import HuggingFaceTokenizer, Tokenizer, build
from pellucid.tokenizers.training import train_bpe

pytest.importorskip("gguf", reason="the gguf package is not installed")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

SIZES = {"d_model": 64, "num_layers": 2, "num_heads": 4, "max_seq_len": 64, "vocab_size": 601}
GELU = {"kind": "gelu", "approximate": True}
GEMMA2 = {
    "block": "sandwich_norm",
    "feed_forward": {"kind": "geglu", "approximate": True},
    "scale_embeddings": True,
    "attention": {"softcap": 50.0, "window": 8, "window_pattern": "LG"},
    "logit_softcap": 30.0,
}
LLAMA3 = {"kind": "llama3", "original_max_seq_len": 32, "factor": 4.0}
YARN = {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_kv_heads": 2},
    "llama with biases and a free head": {"bias": True, "tie_embeddings": False, "head_dim": 32},
    "llama, linear": {"position": {"kind": "rope", "scaling": {"kind": "linear", "factor": 2.0}}},
    "llama, yarn": {"position": {"kind": "rope", "scaling": YARN}},
    "llama, yarn by a factor": {"position": {"kind": "rope", "scaling": {**YARN, "attention_factor": 1.4}}},
    "llama 3": {"position": {"kind": "rope", "theta": 5e5, "scaling": LLAMA3}},
    "mixtral": {"feed_forward": {"kind": "moe", "num_experts": 4, "top_k": 2}},
    "qwen3": {"attention": {"qk_norm": True}, "num_kv_heads": 1},
    "gemma2": GEMMA2,
    "gemma2, linear": {**GEMMA2, "position": {"kind": "rope", "scaling": {"kind": "linear", "factor": 2.0}}},
    "gpt2": {
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": GELU,
        "bias": True,
    },
}


@torch.no_grad()
def made(name: str) -> DecoderLM:
    """Weights such as training leaves: matrices that matter, gains around 1."""
    model = from_tree(DecoderConfig, merge(SIZES, MODELS[name])).build(seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.12)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build({"kind": "gpt2", "max_ranks": 600})


@pytest.fixture
def receipt_of(tmp_path: Path, tokenizer: Tokenizer):
    """`receipt_of(model, number_format, original)`: the file of a model, compared with another model."""

    def compared(model: DecoderLM, number_format: Any = "f32", original: DecoderLM | None = None):
        path = tmp_path / "model.gguf"
        write_gguf(path, model, tokenizer, number_format=number_format)
        there = InLlamaCpp(path, length=min(LENGTH, model.max_seq_len))
        here = rounded(original or model, number_format)
        return compare(Here(here, tokenizer), there, tokenizer, here, TOLERANCES[number_format])

    return compared


def save(directory: Path, model: DecoderLM, tokenizer: Tokenizer) -> Path:
    contents = checkpoint.Contents(
        {"model": to_tree(model.config)}, dict(model.named_parameters()), tokenizer
    )
    checkpoint.save(directory, contents)
    return directory


# The same model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number_format", TOLERANCES)
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_reads_the_same_model(receipt_of, name, number_format):
    receipt = receipt_of(made(name), number_format)
    assert receipt.passed, receipt.lines()


def test_a_checkpoint_goes_out_and_comes_back_with_receipts(tmp_path, tokenizer):
    source = save(tmp_path / "ours", made("llama"), tokenizer)
    receipt = exchange.export_gguf(source, tmp_path / "model.gguf", number_format="q4_1")
    assert receipt.findings
    assert receipt.passed
    receipt = exchange.import_model(tmp_path / "model.gguf", tmp_path / "back")
    assert receipt.findings
    assert receipt.passed


def test_a_trained_model_writes_the_same_text(train_tiny, tmp_path):
    run = train_tiny("model.d_model=32", "train.steps=30")
    source, _ = checkpoint.find_checkpoint(run.directory)
    receipt = exchange.export_gguf(source, tmp_path / "model.gguf", number_format="f32")
    greedy = next(finding for finding in receipt.findings if finding.what == "greedy ids")
    assert receipt.passed
    assert greedy.found == "8 there, 8 here, equal as far as they go"


# The same ids ------------------------------------------------------------------------------------------

TEXT = "It's 12345 o'clock, don't they'LL say?\n\n  Déjà vu: the old house, the old mill; x=1234567.\n" * 4


def trained(pattern: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(train_bpe([TEXT], 400, pattern=pattern, special_tokens=["<|sep|>"]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: build("gpt2"),
        lambda: build("p50k_base"),
        lambda: build("byte"),
        lambda: build({"kind": "gpt2", "max_ranks": 300, "special_tokens": ["<|im_end|>", "<a b>"]}),
        lambda: trained("gpt2"),
        lambda: trained("cl100k"),
        lambda: trained("qwen2"),
    ],
    ids=["gpt2", "p50k_base", "byte", "added", "trained gpt2", "trained cl100k", "trained qwen2"],
)
def test_llama_cpp_gives_the_same_ids(tmp_path, make):
    tokenizer = make()
    there = in_llama_cpp(tmp_path, tokenizer)
    more = [
        "",
        " ",
        TEXT,
        "a<|endoftext|>b<|im_end|> <|sep|><a b>",
        "unused 7",
        "\r\n \n\t \n",
        "ſ'ſ 's'S 'Ll",
    ]
    for text in (*ADVERSARIAL, *more):
        assert there.encode(text) == tokenizer.encode(text, allow_special=True).tolist(), text


def test_characters_of_ascii(tmp_path):
    alphabet = "\n !',-.019:?ABIaeghilnorst"
    tokenizer = build({"kind": "char", "alphabet": alphabet})
    text = "In a tale,  the lion's tooth: 1 or 10?\n\n - no! "
    there = in_llama_cpp(tmp_path, tokenizer)
    assert (
        there.encode(text + "<|endoftext|>")
        == tokenizer.encode(text + "<|endoftext|>", allow_special=True).tolist()
    )


def in_llama_cpp(folder: Path, tokenizer: Tokenizer) -> InLlamaCpp:
    sizes = {"d_model": 8, "num_layers": 1, "num_heads": 1, "max_seq_len": 16}
    model = from_tree(DecoderConfig, {**sizes, "vocab_size": tokenizer.vocab_size + 2}).build()
    write_gguf(folder / "model.gguf", model, tokenizer)
    return InLlamaCpp(folder / "model.gguf", length=16)


# Another model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number_format", TOLERANCES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_one_flipped_weight_fails(receipt_of, name, number_format):
    model, flipped = made(name), made(name)
    with torch.no_grad():
        matrix = flipped.get_parameter("blocks.0.attention.value.weight").view(-1)
        matrix[matrix.abs().argmax()] *= -1
    receipt = receipt_of(flipped, number_format, model)
    assert not receipt.passed, receipt.lines()


def test_queries_left_in_halves_fail(receipt_of, monkeypatch):
    monkeypatch.setattr(architectures, "interleave", lambda rows, heads: rows)
    failed = {finding.what for finding in receipt_of(made("llama")).findings if not finding.passed}
    assert "logits" in failed
    assert "tokenizer ids" not in failed


def test_a_wrong_pre_tokenizer_fails(receipt_of, monkeypatch):
    wrong = next(rule for rule in RULES if rule.name == "qwen2")
    monkeypatch.setattr(words, "rule_of", lambda *arguments, **settings: wrong)
    failed = {finding.what for finding in receipt_of(made("llama")).findings if not finding.passed}
    assert failed == {"tokenizer ids"}


def test_a_failed_receipt_leaves_no_file(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(architectures, "interleave", lambda rows, heads: rows)
    source = save(tmp_path / "ours", made("llama"), tokenizer)
    with pytest.raises(ParityError, match=r"llama\.cpp .* does not read the same model"):
        exchange.export_gguf(source, tmp_path / "out" / "model.gguf", number_format="f32")
    assert not list((tmp_path / "out").iterdir())


def test_what_llama_cpp_does_not_load_is_told_in_its_words(tmp_path, tokenizer, capfd):
    path = tmp_path / "model.gguf"
    write_gguf(path, made("llama"), tokenizer)
    path.write_bytes(path.read_bytes().replace(b"gpt-2", b"gpt-9"))
    with pytest.raises(ParityError, match="unknown pre-tokenizer type: 'gpt-9'"):
        InLlamaCpp(path, length=16)
    assert capfd.readouterr() == ("", "")
