"""Tokenizers in GGUF's words: the same ids when they come back, or a refusal that says why."""

from functools import cache

import pytest

from pellucid.errors import CheckpointError, TokenizerError
from pellucid.interop.gguf.rules import RULES, merges_reach_all
from pellucid.interop.gguf.words import CONTROL, NORMAL, UNUSED, USER_DEFINED, Words, tokenizer_of, words_of
from pellucid.interop.receipt import ADVERSARIAL
from pellucid.tokenizers import HuggingFaceTokenizer, build
from pellucid.tokenizers.tiktoken import O200K_PATTERN
from pellucid.tokenizers.tokenizer_json import added_token, byte_level
from pellucid.tokenizers.training import train_bpe

TEXT = "It's 12345 o'clock, don't they'LL say?\n\n  Déjà vu: the old house, the old mill; x=1234567.\n" * 4


@cache
def trained(pattern):
    return train_bpe([TEXT], 400, pattern=pattern, special_tokens=["<|sep|>"])


def tokenizers():
    yield "gpt2", build("gpt2"), "gpt-2"
    yield "gpt2 cut", build({"kind": "gpt2", "max_ranks": 600}), "gpt-2"
    yield "added", build({"kind": "gpt2", "max_ranks": 300, "special_tokens": ["<|im_end|>"]}), "gpt-2"
    yield "p50k_base", build("p50k_base"), "gpt-2"
    yield "byte", build("byte"), "gpt-2"
    for pattern, rule in {"gpt2": "gpt-2", "cl100k": "llama-bpe", "qwen2": "qwen2"}.items():
        yield f"trained {pattern}", HuggingFaceTokenizer(trained(pattern)), rule


@pytest.mark.parametrize(("tokenizer", "rule"), [pytest.param(t, r, id=n) for n, t, r in tokenizers()])
def test_the_same_ids_come_back(tokenizer, rule):
    words = words_of(tokenizer, tokenizer.vocab_size + 3)
    back = tokenizer_of(words)
    assert words.rule == rule
    assert list(words.types[-3:]) == [UNUSED] * 3
    for text in (*ADVERSARIAL, TEXT, "a<|endoftext|>b<|im_end|><|sep|>", "unused 5"):
        for special in (True, False):
            expected = tokenizer.encode(text, allow_special=special).tolist()
            assert back.encode(text, allow_special=special).tolist() == expected
    assert back.end_of_text_id == tokenizer.end_of_text_id


def test_a_char_tokenizer_of_ascii_comes_back():
    tokenizer = build({"kind": "char", "alphabet": "\n abc"})
    back = tokenizer_of(words_of(tokenizer, tokenizer.vocab_size))
    assert back.encode("abc\n cab").tolist() == tokenizer.encode("abc\n cab").tolist()
    assert back.end_of_text_id == tokenizer.end_of_text_id == 5


def with_steps(pre_tokenizer, **changes):
    tree = trained("gpt2")
    return HuggingFaceTokenizer({**tree, "pre_tokenizer": pre_tokenizer, **changes})


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        byte_level({b"a": 0}, {}, (), pattern=O200K_PATTERN)["pre_tokenizer"],
    ],
    ids=["none", "whitespace", "prefix space", "o200k"],
)
def test_a_rule_without_a_name_is_refused(pre_tokenizer):
    with pytest.raises(TokenizerError, match="no name for the rule"):
        words_of(with_steps(pre_tokenizer), 401)


def test_an_id_that_names_nothing_is_unused():
    tokenizer = HuggingFaceTokenizer(byte_level({b"a": 0, b"b": 2}, {"<|endoftext|>": 3}, ()))
    assert list(words_of(tokenizer, 5).types) == [NORMAL, UNUSED, NORMAL, CONTROL, UNUSED]


def test_other_kinds_of_tokenizers_are_refused():
    with pytest.raises(TokenizerError, match="char: GGUF has words for byte-level BPE only"):
        words_of(build({"kind": "char", "alphabet": "aü"}), 3)
    with pytest.raises(TokenizerError, match="byte-level BPE only"):
        words_of(HuggingFaceTokenizer({**trained("gpt2"), "normalizer": {"type": "NFC"}}), 401)


def test_a_tokenizer_without_an_end_is_refused():
    tree = {**trained("gpt2"), "added_tokens": []}
    with pytest.raises(TokenizerError, match="no token that ends a text"):
        words_of(HuggingFaceTokenizer(tree), 401)


def test_an_added_token_that_takes_spaces_is_refused():
    tree = trained("gpt2")
    added = [{**token, "lstrip": True} for token in tree["added_tokens"]]
    with pytest.raises(TokenizerError, match="has lstrip"):
        words_of(HuggingFaceTokenizer({**tree, "added_tokens": added}), 401)


def test_added_tokens_that_are_not_special_stay_so():
    tree = trained("gpt2")
    number = len(tree["model"]["vocab"]) + 1
    plain = {**added_token("<think>", number), "special": False}
    tokenizer = HuggingFaceTokenizer({**tree, "added_tokens": [*tree["added_tokens"], plain]})
    words = words_of(tokenizer, tokenizer.vocab_size)
    assert words.types[number] == USER_DEFINED
    assert tokenizer_of(words).encode("a<think>").tolist() == tokenizer.encode("a<think>").tolist()
    assert number in tokenizer.encode("a<think>")


def test_an_id_that_the_file_and_the_library_give_to_two_tokens_is_refused():
    tree = trained("gpt2")
    wrong = {**added_token("<think>", len(tree["model"]["vocab"])), "special": False}
    with pytest.raises(TokenizerError, match="'<think>' has the id 305"):
        words_of(HuggingFaceTokenizer({**tree, "added_tokens": [*tree["added_tokens"], wrong]}), 401)


def test_merges_matter_where_they_do_not_reach_a_token():
    assert merges_reach_all(["a", "ab", "abc"], ["a b", "ab c"])
    assert not merges_reach_all(["a", "abc"], ["a b"])
    assert not merges_reach_all(["a", "abc"], ["b c", "a b", "ab c"])  # b and c come first, and a bc is none


def test_the_rule_that_takes_pieces_whole_is_written_only_where_that_is_no_matter():
    tree = trained("cl100k")
    unreached = {**tree["model"], "merges": tree["model"]["merges"][:-1]}
    words = words_of(HuggingFaceTokenizer({**tree, "model": unreached}), 401)
    assert words.rule == "dbrx"
    assert words_of(
        HuggingFaceTokenizer({**tree, "model": {**unreached, "ignore_merges": True}}), 401
    ).rule == ("llama-bpe")


def test_names_of_rules_are_there_once():
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_words_that_do_not_fit_are_refused():
    with pytest.raises(CheckpointError, match="a token and a type"):
        tokenizer_of(Words("gpt-2", ["a", "b"], [NORMAL], [], None))
    with pytest.raises(CheckpointError, match="a token and a type"):
        tokenizer_of(Words("gpt-2", ["a", "a"], [NORMAL, CONTROL], [], None))
    with pytest.raises(CheckpointError, match="'default' is no rule"):
        tokenizer_of(Words("default", ["a"], [NORMAL], [], None))
