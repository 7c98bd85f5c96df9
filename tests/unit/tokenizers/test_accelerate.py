"""A faster encoder is used where it gives the tokenizer's ids, and only there."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.errors import TokenizerError
from pellucid.tokenizers import Tokenizer, accelerate, build
from pellucid.tokenizers.accelerate import SAMPLE_CHARACTERS, Encoder, fastest_encoder

fastokens = pytest.importorskip(
    "fastokens", reason="the accelerator is an extra: pip install 'pellucid[data]'"
)

TEXTS = [
    "",
    "Hello world, it's 2024 and we'LL see; they'VE gone.",
    "<|endoftext|> is text here<|endoftext|>, and <|fim_prefix|> too",
    "naïve e\u0301\u0301 ǅ ᾈ ʰ ª ½ Ⅷ ٣ 中文字 한글 क्ष ไทย אבג عربي",
    "👩‍👩‍👧 🇩🇪 \u200d\ufeff\ufffd\x00\x1c\x7f\x85\u2028 'ſ 'İ it’s",
    b"\xff\xfe broken \xc3( bytes".decode(errors="replace"),
    *(run * 30_000 for run in (" ", "\n", "\r\n", "a", "1", "=", "中")),
    *(chr(code) for code in range(0x3000, 0x3100)),
]


@pytest.fixture(autouse=True)
def _nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh process."""
    monkeypatch.setattr(accelerate, "_STARTED", {})


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    """Few merges, so that the accelerator is made quickly."""
    return build({"kind": "gpt2", "max_ranks": 700})


def equal(encoder: Encoder, tokenizer: Tokenizer, texts: list[str], *, num_threads: int = 1) -> bool:
    ids, offsets = encoder.encode_batch(texts, num_threads=num_threads)
    wanted, ends = tokenizer.encode_batch(texts)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    return np.array_equal(ids, wanted) and np.array_equal(offsets, ends)


class Library:
    """fastokens' Tokenizer with its method for batches changed."""

    def __init__(self, change: Callable[[Any, list[str]], Any]) -> None:
        self.real, self.change, self.calls = fastokens.Tokenizer, change, 0

    def from_json_str(self, text: str) -> "Library":
        self.loaded = self.real.from_json_str(text)
        return self

    def encode_batch_flat(self, texts: list[str], **settings: Any) -> Any:
        self.calls += 1
        return self.change(self.loaded.encode_batch_flat(texts, **settings), texts)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("gpt2", marks=pytest.mark.slow),
        {"kind": "gpt2", "max_ranks": 700},
        pytest.param("p50k_base", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_gives_the_ids_of_the_tokenizer(kind: Any, num_threads: int) -> None:
    tokenizer = build(kind)
    encoder = fastest_encoder(tokenizer, ["a text of the source"])
    assert (encoder.name, encoder.is_accelerated) == ("fastokens", True)
    assert encoder.note.startswith("fastokens ")
    assert "equal to tiktoken on" in encoder.note
    assert equal(encoder, tokenizer, TEXTS, num_threads=num_threads)
    assert equal(encoder, tokenizer, [], num_threads=num_threads)


@pytest.mark.parametrize("kind", ["cl100k_base", "o200k_base"])
def test_vocabularies_of_a_ranks_file(kind: str, cache_with: Callable[[str], Path]) -> None:
    cache_with(kind)
    tokenizer = build(kind)
    encoder = fastest_encoder(tokenizer)
    assert encoder.name == "fastokens"
    assert equal(encoder, tokenizer, TEXTS)


def test_special_tokens_are_text_whoever_added_them() -> None:
    tokenizer = build({"kind": "gpt2", "special_tokens": ["<|pad|>", "<mask>"]})
    encoder = fastest_encoder(tokenizer)
    assert encoder.is_accelerated
    assert equal(encoder, tokenizer, ["<|pad|><mask> <|endoftext|>", "a<mask>b <|pad|>"])


def test_a_tokenizer_json_is_compared_with_the_library_of_its_format(gpt2: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    gpt2.save(tmp_path)
    tokenizer = build({"kind": "huggingface", "path": str(tmp_path)})
    encoder = fastest_encoder(tokenizer)
    assert encoder.is_accelerated
    assert "equal to tokenizers on" in encoder.note
    assert equal(encoder, tokenizer, TEXTS)


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer", "reason"),
    [
        (
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            {"type": "NFC"},
            "normalizer (NFC)",
        ),
        ({"type": "Whitespace"}, None, "pre-tokenizer of Whitespace"),
        (
            {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
            None,
            "pre-tokenizer of Split",
        ),
        (None, None, "pre-tokenizer of None"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Whitespace"},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                ],
            },
            None,
            "pre-tokenizer of Whitespace, ByteLevel",
        ),
    ],
)
def test_other_rules_stay_with_their_library(
    pre_tokenizer: Any, normalizer: Any, reason: str, tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    content = json.loads(made.to_str()) | {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    encoder = fastest_encoder(build({"kind": "huggingface", "path": str(tmp_path)}))
    assert (encoder.name, encoder.is_accelerated) == ("tokenizers", False)
    assert reason in encoder.note


def test_other_models_stay_with_their_library(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab={"a": 0, "b": 1}, unk_token="a"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(tmp_path / "tokenizer.json"))
    encoder = fastest_encoder(build({"kind": "huggingface", "path": str(tmp_path)}))
    assert encoder.note == "tokenizers: a model of type WordLevel, which fastokens is not asked to do"


@pytest.mark.parametrize("kind", ["byte", {"kind": "char", "alphabet": "ab"}])
def test_numpy_tokenizers_encode_themselves(kind: Any) -> None:
    tokenizer = build(kind)
    encoder = fastest_encoder(tokenizer, ["ab"])
    assert (encoder.name, encoder.is_accelerated) == ("numpy", False)
    assert equal(encoder, tokenizer, ["ab", "", "ba"])


def test_one_other_id_in_one_text_is_enough_to_be_refused(
    small: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = "a text unlike all others"

    def falsify(result: tuple[bytes, bytes], texts: list[str]) -> tuple[bytes, bytes]:
        if rare not in texts:
            return result
        ids, offsets = np.frombuffer(result[0], np.uint32).copy(), np.frombuffer(result[1], np.uint64)
        ids[int(offsets[texts.index(rare) + 1]) - 1] += 1
        return ids.tobytes(), result[1]

    monkeypatch.setattr(fastokens, "Tokenizer", Library(falsify))
    assert fastest_encoder(small, ["ordinary"]).is_accelerated
    encoder = fastest_encoder(small, ["ordinary", rare, "more"])
    assert (encoder.name, encoder.is_accelerated) == ("tiktoken", False)
    assert encoder.note == f"tiktoken: fastokens gave other ids for '{rare}'"
    assert equal(encoder, small, [rare])


def test_ids_of_the_wrong_texts_are_refused(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(result: tuple[bytes, bytes], texts: list[str]) -> tuple[bytes, bytes]:
        ends = np.frombuffer(result[1], np.uint64).copy()
        ends[len(ends) // 2] += 1
        return result[0], ends.tobytes()

    monkeypatch.setattr(fastokens, "Tokenizer", Library(shift))
    encoder = fastest_encoder(small)
    assert not encoder.is_accelerated
    assert "gave other ids" in encoder.note


def test_without_the_library(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    encoder = fastest_encoder(small)
    assert (encoder.name, encoder.is_accelerated) == ("tiktoken", False)
    assert encoder.note.startswith("tiktoken: fastokens is not installed; pip install 'pellucid[data]'")
    assert equal(encoder, small, TEXTS[:6])


def test_a_library_that_cannot_read_the_vocabulary(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Library, text: str) -> None:
        raise ValueError("unsupported model")

    monkeypatch.setattr(Library, "from_json_str", refuse)
    monkeypatch.setattr(fastokens, "Tokenizer", Library(lambda result, texts: result))
    encoder = fastest_encoder(small)
    assert encoder.note == "tiktoken: fastokens cannot encode as it does (ValueError: unsupported model)"
    assert equal(encoder, small, TEXTS[:6])


class PanicException(BaseException):
    """As pyo3 names a panic of Rust; it is no Exception."""


@pytest.mark.parametrize("fault", [RuntimeError("lost"), PanicException("index out of bounds")])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_batch_that_fails_goes_to_the_tokenizer(
    small: Tokenizer, fault: BaseException, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(result: tuple[bytes, bytes], texts: list[str]) -> tuple[bytes, bytes]:
        if "bad" in texts:
            raise fault
        return result

    library = Library(fail)
    monkeypatch.setattr(fastokens, "Tokenizer", library)
    encoder = fastest_encoder(small)
    assert encoder.is_accelerated
    for texts in (["good", "bad", "x"], ["good", "again"]):
        library.calls = 0
        assert equal(encoder, small, texts, num_threads=num_threads)
        assert library.calls > 0


def test_an_interrupt_is_no_fault(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(result: tuple[bytes, bytes], texts: list[str]) -> tuple[bytes, bytes]:
        if texts == ["stop"]:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(fastokens, "Tokenizer", Library(interrupt))
    encoder = fastest_encoder(small)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode_batch(["stop"])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_errors_are_those_of_the_tokenizer(small: Tokenizer, num_threads: int) -> None:
    encoder = fastest_encoder(small, ["half \udc00 in the sample is left out of the proof", "good"])
    assert encoder.is_accelerated
    with pytest.raises(TokenizerError, match=r"texts\[1\]: gpt2: character 2 of the text is U\+D800"):
        encoder.encode_batch(["good", "a \ud800", "x"], num_threads=num_threads)
    with pytest.raises(TokenizerError, match="wants a list of texts"):
        encoder.encode_batch("text", num_threads=num_threads)


def test_a_sample_is_compared_up_to_its_limit(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def note(result: tuple[bytes, bytes], texts: list[str]) -> tuple[bytes, bytes]:
        seen.extend(map(len, texts))
        return result

    monkeypatch.setattr(fastokens, "Tokenizer", Library(note))
    fastest_encoder(small)
    built_in = sum(seen)
    seen.clear()
    fastest_encoder(small, ["word " * 100_000] * 5)
    assert built_in < SAMPLE_CHARACTERS
    assert sum(seen) == SAMPLE_CHARACTERS  # the built-in ones were compared before, in this process


def test_many_threads_share_an_encoder(gpt2: Tokenizer) -> None:
    encoder = fastest_encoder(gpt2)
    results: list[bool] = []

    def work() -> None:
        results.extend(equal(encoder, gpt2, TEXTS) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 12


def test_prints_nothing_and_starts_no_threads(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "from pellucid.tokenizers import build\n"
        "from pellucid.tokenizers.accelerate import fastest_encoder\n"
        "encoder = fastest_encoder(build({'kind': 'gpt2', 'max_ranks': 700}))\n"
        "encoder.encode_batch(['some words '] * 5000)\n"
        "count = len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1\n"
        "raise SystemExit(0 if encoder.is_accelerated and count == 1 else 3)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("FASTOKENS_BPE_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
