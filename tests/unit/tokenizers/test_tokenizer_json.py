import json
from pathlib import Path

import pytest
import tokenizers

from pellucid.errors import TokenizerError
from pellucid.tokenizers import ByteTokenizer, CharTokenizer, GPT2Config, Tokenizer, build, load
from pellucid.tokenizers.ranks import gpt2_ranks
from pellucid.tokenizers.tiktoken import GPT2_PATTERN, TiktokenTokenizer
from pellucid.tokenizers.tokenizer_json import merges_of, to_tokenizer_json


def by_library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(tokenizer)))


def test_what_others_look_for(gpt2: Tokenizer) -> None:
    tree = to_tokenizer_json(gpt2)
    assert tree["pre_tokenizer"] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    assert tree["model"]["type"] == "BPE"
    assert tree["model"]["vocab"]["Ġworld"] == 995
    assert tree["model"]["merges"][0] == "Ġ t"
    assert tree["added_tokens"] == [
        {
            "id": 50256,
            "content": "<|endoftext|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ]


def test_byte_ids_are_bytes() -> None:
    tree = to_tokenizer_json(ByteTokenizer(["<pad>"]))
    vocabulary = tree["model"]["vocab"]
    assert (vocabulary["A"], vocabulary["Ġ"], vocabulary["<|endoftext|>"]) == (65, 32, 256)
    assert tree["model"]["merges"] == []
    assert [(token["content"], token["id"]) for token in tree["added_tokens"]] == [
        ("<|endoftext|>", 256),
        ("<pad>", 257),
    ]


def test_a_pair_is_the_last_that_is_met() -> None:
    """`abab` is reached from ab and ab, never from aba and b, though that is a token too."""
    ranks = {b"a": 0, b"b": 1, b"ab": 2, b"aba": 3, b"abab": 4}
    assert list(merges_of(ranks)) == [(b"a", b"b"), (b"ab", b"a"), (b"ab", b"ab")]


def test_a_token_that_merges_do_not_reach_is_taken_whole() -> None:
    ranks = gpt2_ranks(256) | {b"abc": 256}
    assert list(merges_of(ranks)) == []
    tokenizer = TiktokenTokenizer("whole", ranks, GPT2_PATTERN, {"<|endoftext|>": 257})
    assert to_tokenizer_json(tokenizer)["model"]["ignore_merges"] is True
    for text in ("abc", "abcd", " abc"):
        assert by_library(tokenizer).encode(text).ids == tokenizer.encode(text).tolist()
    assert 256 in tokenizer.encode("abc")


def test_ids_that_name_nothing_keep_their_place() -> None:
    own = {"<|endoftext|>": 258, "<|end|>": 260}
    tokenizer = TiktokenTokenizer("holey", gpt2_ranks(256), GPT2_PATTERN, own, ["<pad>"])
    made = by_library(tokenizer)
    assert {token: made.token_to_id(token) for token in tokenizer.special_tokens} == tokenizer.special_tokens
    text = "unused 256<|end|><pad>unused 257"
    assert made.encode(text).ids == tokenizer.encode(text, allow_special=True).tolist()


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(["a"]), CharTokenizer("ab", ["b"]), CharTokenizer("é", ["é"])]
)
def test_a_special_token_that_is_an_ordinary_one_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="is spelt as an ordinary token is"):
        to_tokenizer_json(tokenizer)
    ByteTokenizer().save(tmp_path)
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pellucid.json"]  # and no file of another
    assert load(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    "config", ["byte", {"kind": "char", "alphabet": "aé\n"}, {"kind": "gpt2", "max_ranks": 300}]
)
def test_it_is_saved_beside(config: object, tmp_path: Path) -> None:
    tokenizer = build(config)  # pyright: ignore[reportArgumentType]
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_bytes()) == to_tokenizer_json(tokenizer)
    assert load(tmp_path).fingerprint == tokenizer.fingerprint


def test_a_run_that_saves_often_makes_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = GPT2Config(max_ranks=300).build()
    tokenizer.save(tmp_path / "first")
    monkeypatch.setattr(tokenizer, "tokenizer_json", lambda: pytest.fail("made again"))
    tokenizer.save(tmp_path / "second")
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second
