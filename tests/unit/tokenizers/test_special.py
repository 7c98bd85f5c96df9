import pytest

from pellucid.errors import ConfigError, TokenizerError
from pellucid.tokenizers import ByteConfig, ByteTokenizer, special


def test_added_tokens_are_numbered_in_order_after_the_own_ids() -> None:
    assert special.number({"<e>": 4}, ["<b>", "<a>"], first_id=9) == {"<e>": 4, "<b>": 9, "<a>": 10}


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (["<a>", ""], "is empty"),
        (["<a>", "<a>"], "'<a>' is named twice"),
        (["<e>"], "'<e>' is one of the tokenizer's own"),
        (["\udc00"], "half of a surrogate pair"),
    ],
)
def test_unusable_added_tokens_are_refused(added: list[str], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        special.number({"<e>": 4}, added, first_id=9)


def test_a_config_refuses_them_with_the_path() -> None:
    with pytest.raises(ValueError, match=r"special_tokens\n.*'<a>' is named twice"):
        ByteConfig(special_tokens=("<a>", "<a>"))


def test_the_longest_special_token_wins_where_several_begin() -> None:
    tokenizer = ByteTokenizer(["<a>", "<a><b>"])
    assert tokenizer.encode("<a><b><a>", allow_special=True).tolist() == [258, 257]


def test_special_tokens_may_hold_any_character() -> None:
    tokenizer = ByteTokenizer(["é.*(", "\n", "空"])
    ids = tokenizer.encode("é.*(x空\n", allow_special=True)
    assert ids.tolist() == [257, ord("x"), 259, 258]
    assert tokenizer.decode(ids) == "é.*(x空\n"
    assert tokenizer.encode("空").tolist() == list("空".encode())


def test_without_special_tokens_a_text_is_one_part() -> None:
    assert list(special.split("any text", special.pattern({}))) == [(0, "any text", "")]


def test_config_error_of_a_bigger_config_has_the_path() -> None:
    from pellucid.config import Config, from_tree
    from pellucid.tokenizers import TokenizerConfig

    class Data(Config):
        tokenizer: TokenizerConfig

    class Run(Config):
        data: Data

    with pytest.raises(ConfigError, match=r"^data\.tokenizer\.special_tokens: .*is empty"):
        from_tree(Run, {"data": {"tokenizer": {"kind": "byte", "special_tokens": [""]}}})
