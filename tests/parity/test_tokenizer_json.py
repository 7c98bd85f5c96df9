"""tokenizer.json of every kind: Hugging Face's `tokenizers` gives our ids for texts made to break it."""

import json
import os
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import tokenizers
import transformers

from pellucid.tokenizers import Tokenizer, build
from pellucid.tokenizers.ranks import CL100K_FILE, O200K_FILE, _gpt2_merges, gpt2_ranks, stand_ins
from pellucid.tokenizers.tokenizer_json import merges_of, to_tokenizer_json

FILES = {"cl100k_base": CL100K_FILE, "o200k_base": O200K_FILE}
KINDS = ["byte", "gpt2", "gpt2 at 5000", "p50k_base", *FILES]
ADDED = ("<pad>", "<空>", "<pad><pad>", " spaced out ")
TEXTS = [
    "",
    " ",
    "It's WE'LL they'd I'M 'S 'sS 'ſ o'clock '' 'tis  'LLama",
    "   leading, \t\tmixed \n ends of  lines  \r\n\r\n\n \n\t\n  x\n   ",
    "a \n ",
    "\n    \n   ",
    "\u2028\u2029\u0085\u00a0\u3000\u200b\ufeff x\x1c\x1d\x1f\x0b\x0cy",
    "12345678901234567890 ½²٣Ⅷ 1,234.5e-10 ١٢٣٤٥",
    "naïve nai\u0308ve Ünïcödé ΑΒΓς абв 日本語 한국어 العربية हिन्दी ไทย ǅ ﬁ",
    "🙂🏳️‍🌈👩‍👩‍👧‍👦 \U0001f1e9\U0001f1ea \U000e0041 \U0010ffff",
    "a<|endoftext|>b<|endofprompt|><|fim_prefix|> <pad><pad><pad> spaced out <空> <|endof<pad>text|>",
    "def f(x):\n\t\treturn {'a': [*x]}  # !!!???...///\n/\n//\r\n" + " " * 40 + "end",
    "^" * 3000 + "A" * 3000 + " " * 3000 + "\n" * 3000 + "é" * 1500 + "9" * 3000 + "aA" * 1500,
    "".join(chr(number) for number in range(0xD800)),
]


@cache
def built(name: str) -> Tokenizer:
    kind, _, limit = name.partition(" at ")
    if kind in FILES:
        folder = os.environ.get("TIKTOKEN_CACHE_DIR")
        if not folder or not (Path(folder) / FILES[kind].cache_name).is_file():
            pytest.skip(f"TIKTOKEN_CACHE_DIR names no directory with tiktoken's files of {kind}")
    return build({"kind": kind, "special_tokens": ADDED, **({"max_ranks": int(limit)} if limit else {})})


@cache
def library(name: str) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(built(name))))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_made_to_break_it(name: str, text: str) -> None:
    ours, theirs = built(name), library(name)
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == ours.encode(text).tolist()
    theirs.encode_special_tokens = False
    ids = theirs.encode(text).ids
    assert ids == ours.encode(text, allow_special=True).tolist()
    assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("name", KINDS)
def test_every_character_between_letters_digits_and_spaces(name: str) -> None:
    """One that a library's regular expressions class otherwise would be cut otherwise."""
    ours, theirs = built(name), library(name)
    theirs.encode_special_tokens = True
    many = ("Lo", "Cn", "Co")  # 1.1 million alike, of which every 97th will do
    kinds = [(chr(number), unicodedata.category(chr(number))) for number in range(0x110000)]
    some = [c for number, (c, kind) in enumerate(kinds) if kind not in many or number % 97 == 0]
    characters = [c for c in some if unicodedata.category(c) != "Cs"]
    assert len(characters) > 25_000
    for start in range(0, len(characters), 2_000):
        text = "".join(f"a{c}b {c}1{c} " for c in characters[start : start + 2_000])
        assert theirs.encode(text).ids == ours.encode(text).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_the_vocabulary_and_its_special_tokens_are_ours(name: str) -> None:
    ours, theirs = built(name), library(name)
    assert theirs.get_vocab_size() == ours.vocab_size
    assert {token: theirs.token_to_id(token) for token in ours.special_tokens} == dict(ours.special_tokens)


def test_the_merges_of_gpt2_are_those_it_was_learned_with() -> None:
    merges = to_tokenizer_json(built("gpt2"))["model"]["merges"]
    spell = {byte: chr(code) for code, byte in stand_ins().items()}
    found = [
        " ".join("".join(map(spell.__getitem__, part)) for part in pair) for pair in merges_of(gpt2_ranks())
    ]
    assert merges == found == _gpt2_merges().splitlines()[1:]


@pytest.mark.parametrize("alphabet", ["\n abcdefghijklmnopqrstuvwxyz<|>", "\n äbc日🙂<|endoftxpas>"])
def test_characters(alphabet: str) -> None:
    ours = build({"kind": "char", "alphabet": alphabet, "special_tokens": ["<pad>"]})
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(ours)))
    text = alphabet * 3 + " <pad>\n\n<pad> a"
    assert theirs.encode(text).ids == ours.encode(text, allow_special=True).tolist()
    assert theirs.decode(theirs.encode(text).ids, skip_special_tokens=False) == text
    theirs.encode_special_tokens = True
    if "d" in alphabet:
        assert theirs.encode(text).ids == ours.encode(text).tolist()
    assert theirs.encode("a§a").ids == ours.encode("aa").tolist()  # what ours refuses, it leaves out


@pytest.mark.parametrize("name", KINDS)
def test_transformers_reads_what_was_saved(name: str, tmp_path: Path) -> None:
    ours = built(name)
    ours.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in TEXTS[:-1]:
        assert theirs.encode(text) == ours.encode(text, allow_special=True).tolist()
        assert theirs.encode(text, split_special_tokens=True) == ours.encode(text).tolist()
