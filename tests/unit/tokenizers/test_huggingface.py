import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from pellucid.errors import TokenizerError
from pellucid.tokenizers import (
    ByteTokenizer,
    GPT2Config,
    HuggingFaceConfig,
    HuggingFaceTokenizer,
    build,
    load,
)
from pellucid.tokenizers.tiktoken import O200K_PATTERN
from pellucid.tokenizers.tokenizer_json import LLAMA3_PATTERN, byte_level
from pellucid.tokenizers.training import train_bpe

TEXT = "Hello  wörld, it's <|endoftext|> 语言 🙂\n\n x\t<pad> "


def small(**changes: Any) -> dict[str, Any]:
    """300 ids of GPT-2 as someone else's file, with parts of it changed."""
    return GPT2Config(max_ranks=300).build().tokenizer_json() | changes


def written(directory: Path, tree: dict[str, Any], settings: dict[str, Any] | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def added(content: str, number: int, **changes: Any) -> dict[str, Any]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **off, "special": True, **changes}


# Where it comes from ----------------------------------------------------------------------------------


def test_a_directory_a_file_and_a_config_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "mine", small())
    monkeypatch.chdir(tmp_path)
    paths = ["mine", "mine/", "./mine", "mine/tokenizer.json", str(tmp_path / "mine")]
    ways: list[Any] = [*paths, *({"kind": path} for path in paths), {"kind": "huggingface", "path": "mine"}]
    ways.append(HuggingFaceConfig(path="mine"))
    assert len({build(way).fingerprint for way in ways}) == 1


def test_a_kind_comes_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "byte", small())
    monkeypatch.chdir(tmp_path)
    assert build("byte").kind == "byte"
    assert build("./byte").kind == "huggingface"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gtp2", r"no kind 'gtp2'; did you mean 'gpt2'\?"),
        ("/nowhere/tokenizer.json", "no such file or directory; name a tokenizer.json"),
        ("some/where/deep", "no such file or directory; name a tokenizer.json"),
        ("empty/", "no tokenizer.json in this directory"),
        ("broken/tokenizer.json", "not JSON"),
        ("list/tokenizer.json", "an object is wanted, not a list"),
        ("other/tokenizer.json", "no tokenizer.json that the tokenizers library reads"),
    ],
)
def test_what_is_no_tokenizer_is_named(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {"empty": None, "broken": b'{"a', "list": b"[]", "other": b"{}"}.items():
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        build(path)


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for the repository `someone/small`."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        prefix = "/someone/small/resolve/main/"
        content = self.files.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None
        self.send_response(404 if content is None else 200)
        if content is None:
            known = self.path.startswith(prefix)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("ETag", f'"{len(content or b"")}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815 (the library's name)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Build a tokenizer by name in a process whose hub is a server here, or that has none."""
    tree = small(added_tokens=[added("<|endoftext|>", 300), added("<|im_end|>", 301)])
    Hub.files = {
        "tokenizer.json": json.dumps(tree).encode(),
        "tokenizer_config.json": json.dumps({"eos_token": {"content": "<|im_end|>"}}).encode(),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def run(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program = (
            "import sys; from pellucid.tokenizers import build; from pellucid.errors import TokenizerError\n"
            "try: t = build(sys.argv[1])\n"
            "except TokenizerError as error: sys.exit(f'refused: {error}')\n"
            "print(t.vocab_size, t.end_of_text_id, t.fingerprint)"
        )
        endpoint = f"http://127.0.0.1:{server.server_port}"
        home = {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-c", program, name],
            env=os.environ | home | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_name_is_fetched_from_the_hub_and_kept(
    hub: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    first = hub("someone/small")
    assert first.stdout.split()[:2] == ["302", "301"], first.stderr
    assert first.stderr == ""
    without_network = hub("someone/small", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert without_network.stdout == first.stdout, without_network.stderr


def test_a_name_that_cannot_be_fetched(hub: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for name, environment in (("no/such", {}), ("someone/small", {"HF_HUB_OFFLINE": "1"})):
        ended = hub(name, **environment)
        assert ended.returncode == 1
        assert (
            f"refused: {name}: no such file or directory here, and tokenizer.json cannot be" in ended.stderr
        )
        assert "Check the name and the network" in ended.stderr
    del Hub.files["tokenizer_config.json"]
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):  # without settings it is still one
        assert hub("someone/small", **environment).stdout.split()[:2] == ["302", "300"]


# What it does -----------------------------------------------------------------------------------------


def test_nothing_is_added_cut_off_or_left_to_chance() -> None:
    plain = HuggingFaceTokenizer(small())
    tree = small(
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 99},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        },
    )
    tree["model"] = {**tree["model"], "dropout": 0.9}
    library = Library.from_str(json.dumps(tree))
    library.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 300)]
    )
    tokenizer = HuggingFaceTokenizer(json.loads(library.to_str()))
    assert np.array_equal(tokenizer.encode(TEXT), plain.encode(TEXT))
    assert np.array_equal(tokenizer.encode(TEXT, allow_special=True), plain.encode(TEXT, allow_special=True))


def test_equal_to_the_library_with_special_tokens_that_take_spaces_with_them() -> None:
    tree = small(added_tokens=[added("<|endoftext|>", 300), added("<mask>", 301, lstrip=True)])
    tokenizer, library = HuggingFaceTokenizer(tree), Library.from_str(json.dumps(tree))
    text = "a   <mask> b<|endoftext|>"
    assert tokenizer.encode(text, allow_special=True).tolist() == library.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("given", "settings", "expected"),
    [
        (None, None, "<|endoftext|>"),
        (None, {}, "<|endoftext|>"),
        (None, {"eos_token": "<|im_end|>"}, "<|im_end|>"),
        (None, {"eos_token": {"content": "</s>"}}, "</s>"),
        (None, {"eos_token": None}, "<|endoftext|>"),
        (None, {"eos_token": "<not there>"}, "<|endoftext|>"),
        ("</s>", {"eos_token": "<|im_end|>"}, "</s>"),
        ("<mine>", None, "<mine>"),
    ],
)
def test_which_token_ends_a_text(
    given: str | None, settings: dict[str, Any] | None, expected: str, tmp_path: Path
) -> None:
    names = ("</s>", "<|im_end|>", "<|endoftext|>")
    tree = small(added_tokens=[added(name, 300 + at) for at, name in enumerate(names)])
    tree["model"]["vocab"].pop("<|endoftext|>")
    directory = written(tmp_path / "theirs", tree, settings)
    tokenizer = HuggingFaceConfig(path=str(directory), end_of_text=given, special_tokens=("<mine>",)).build()
    assert tokenizer.end_of_text_id == tokenizer.special_tokens[expected]
    tokenizer.save(tmp_path / "ours")
    loaded = load(tmp_path / "ours")
    assert (loaded.end_of_text_id, loaded.fingerprint) == (tokenizer.end_of_text_id, tokenizer.fingerprint)


def test_a_file_without_an_end_of_text(tmp_path: Path) -> None:
    tree = small(added_tokens=[added("<s>", 300)])
    tree["model"]["vocab"].pop("<|endoftext|>")
    directory = written(tmp_path, tree)
    assert build(str(directory)).end_of_text_id is None
    with pytest.raises(
        TokenizerError, match=r"'<s/>' is no special token of it; did you mean '<s>'\? \(it has"
    ):
        build({"kind": str(directory), "end_of_text": "<s/>"})


def test_the_end_of_text_is_part_of_the_fingerprint() -> None:
    tree = small(added_tokens=[added("<|endoftext|>", 300), added("</s>", 301)])
    first, second = HuggingFaceTokenizer(tree), HuggingFaceTokenizer(tree, end_of_text="</s>")
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == HuggingFaceTokenizer(tree, end_of_text="<|endoftext|>").fingerprint


def test_the_fingerprint_is_that_of_the_content_not_of_its_layout(tmp_path: Path) -> None:
    tree = small()
    directory = written(tmp_path, dict(reversed(tree.items())))
    assert build(str(directory)).fingerprint == HuggingFaceTokenizer(tree).fingerprint
    tree["pre_tokenizer"] = {**tree["pre_tokenizer"], "add_prefix_space": True}
    assert build(str(directory)).fingerprint != HuggingFaceTokenizer(tree).fingerprint


@pytest.mark.parametrize(
    ("token", "message"), [("in", "ordinary token"), ("<|endoftext|>", "tokenizer's own")]
)
def test_an_added_token_that_is_there_already(token: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        HuggingFaceTokenizer(small(), [token])


def test_a_vocabulary_with_holes_takes_no_more_tokens() -> None:
    tree = small(added_tokens=[])
    tree["model"]["vocab"]["far away"] = 400
    assert HuggingFaceTokenizer(tree).vocab_size == 401
    with pytest.raises(TokenizerError, match="unused ids"):
        HuggingFaceTokenizer(tree, ["<pad>"])


def test_it_stands_alone_once_saved(tmp_path: Path) -> None:
    directory = written(tmp_path / "theirs", small())
    tokenizer = build({"kind": str(directory), "special_tokens": ["<pad>"]})
    tokenizer.save(tmp_path / "ours")
    (directory / "tokenizer.json").unlink()
    loaded = load((tmp_path / "ours").rename(tmp_path / "moved"))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.special_tokens["<pad>"] == 301
    by_path = build(str(tmp_path / "moved"))
    assert by_path.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_do_not_change_the_result(num_threads: int) -> None:
    tokenizer = HuggingFaceTokenizer(small())
    texts = [TEXT[start : start + 5] for start in range(len(TEXT))] * 20
    flat, offsets = tokenizer.encode_batch(texts, num_threads=num_threads)
    expected = [tokenizer.encode(text) for text in texts]
    assert np.array_equal(flat, np.concatenate(expected))
    assert np.array_equal(np.diff(offsets), [len(ids) for ids in expected])


def test_the_library_starts_no_threads_of_its_own() -> None:
    """They would take all cores whatever `num_threads` is, and are lost, with a warning, where a process forks."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not tell a process its threads")
    program = (
        "import os, sys; from pellucid.tokenizers import build\n"
        "t, count = build(sys.argv[1]), lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); t.encode_batch(['a b'] * 9999); print(count() - before)\n"
        "t.encode_batch(['a b'] * 9999, num_threads=2)\n"
        "if os.fork() == 0: t.encode_batch(['a b'] * 9999, num_threads=2); os._exit(0)\n"
        "print(os.wait()[1])"
    )
    path = Path(__file__).parents[2] / "contracts" / "tokenizer.json"
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("0\n0\n", "")


def test_a_pickled_one_treats_special_tokens_alike() -> None:
    tokenizer = HuggingFaceTokenizer(small(), ["<pad>"])
    received = pickle.loads(pickle.dumps(tokenizer))
    for allow_special in (False, True):
        ids = tokenizer.encode(TEXT, allow_special=allow_special)
        assert np.array_equal(received.encode(TEXT, allow_special=allow_special), ids)


# Vocabularies that are not of bytes -------------------------------------------------------------------


def metaspace() -> Library:
    """As of Llama 2: words begin with ▁, and bytes stand for what has no token."""
    pieces = [
        "<unk>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefgh",
        "▁a",
        "▁b",
        "▁ab",
    ]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    library = Library(
        models.BPE(vocabulary, [("▁", "a"), ("▁", "b"), ("▁a", "b")], unk_token="<unk>", byte_fallback=True)
    )
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["</s>"])
    return library


def wordpiece() -> Library:
    words = ["[UNK]", "[SEP]", "hello", "world", "##s", ","]
    library = Library(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    library.add_special_tokens(["[SEP]"])
    return library


@pytest.mark.parametrize("text", ["ab a b", "abc déf 语\n🙂", "  a  b  ", "", "x", "a</s>b"])
def test_words_that_begin_with_a_mark_and_bytes(text: str) -> None:
    library = metaspace()
    tokenizer = HuggingFaceTokenizer(json.loads(library.to_str()))
    library.encode_special_tokens = True
    ids = tokenizer.encode(text)
    assert ids.tolist() == library.encode(text).ids
    assert tokenizer.decode(ids) == library.decode(ids.tolist(), skip_special_tokens=False) == text
    assert tokenizer.decode_bytes(ids) in (f" {text}".encode(), b"")
    assert tokenizer.end_of_text_id == 1
    assert not tokenizer.cuts_at_words


def test_pieces_of_words() -> None:
    library = wordpiece()
    tokenizer = HuggingFaceTokenizer(json.loads(library.to_str()))
    ids = tokenizer.encode("Hello, WORLDS é")
    assert ids.tolist() == library.encode("Hello, WORLDS é").ids == [2, 5, 3, 4, 0]
    assert tokenizer.decode(ids) == library.decode(ids.tolist(), skip_special_tokens=False)
    assert tokenizer.decode(ids) == "hello , worlds [UNK]"
    assert not tokenizer.cuts_at_words


# Where a text may be cut ------------------------------------------------------------------------------


def split(pattern: str, **changes: Any) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **changes}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [cut, level]}


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"pre_tokenizer": LEVEL}, True),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [LEVEL]}}, True),
        ({"pre_tokenizer": split(LLAMA3_PATTERN)}, True),
        ({"pre_tokenizer": split(O200K_PATTERN)}, True),
        ({"normalizer": {"type": "Sequence", "normalizers": []}}, True),
        ({"added_tokens": [added("a b", 300)]}, True),
        ({"pre_tokenizer": {**LEVEL, "add_prefix_space": True}}, False),
        ({"pre_tokenizer": {**LEVEL, "use_regex": False}}, False),
        ({"pre_tokenizer": None}, False),
        ({"pre_tokenizer": split(LLAMA3_PATTERN, invert=True)}, False),
        ({"pre_tokenizer": split(LLAMA3_PATTERN, behavior="Removed")}, False),
        ({"pre_tokenizer": split(r".*")}, False),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"added_tokens": [added("a b", 300, special=False)]}, False),
        ({"added_tokens": [added("ab", 300, special=False, rstrip=True)]}, False),
        ({"added_tokens": [added("ab", 300, special=False)]}, True),
        ({"decoder": {"type": "Fuse"}}, False),
    ],
)
def test_whether_a_text_may_be_cut_after_a_word(changes: dict[str, Any], expected: bool) -> None:
    tree = small(**changes)
    tree["model"]["vocab"].pop("<|endoftext|>")
    assert HuggingFaceTokenizer(tree).cuts_at_words is expected


def test_one_that_is_not_cut_there_would_give_other_ids() -> None:
    tree = byte_level({bytes([b]): b for b in range(256)} | {b"a ": 256, b"a b": 257}, {}, ())
    tree["pre_tokenizer"] = {**LEVEL, "use_regex": False}
    tokenizer = HuggingFaceTokenizer(tree)
    assert not tokenizer.cuts_at_words
    assert len(tokenizer.encode("a b")) < len(tokenizer.encode("a")) + len(tokenizer.encode(" b"))


def test_every_kind_of_ours_can_be_cut_there() -> None:
    assert ByteTokenizer().cuts_at_words
    assert GPT2Config().build().cuts_at_words
    assert HuggingFaceTokenizer(train_bpe(["some words, some words"], 262, pattern="qwen2")).cuts_at_words
