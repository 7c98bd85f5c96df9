import pytest

from pellucid.errors import TokenizerError
from pellucid.tokenizers import CharConfig, CharTokenizer, build
from pellucid.tokenizers.char import alphabet_of


def test_ids_follow_the_sorted_characters_of_the_corpus() -> None:
    tokenizer = CharConfig().build(lambda: ["hello", " world\n"])
    assert tokenizer.alphabet == "\n dehlorw"
    assert tokenizer.encode("hello").tolist() == [4, 3, 5, 5, 6]
    assert (tokenizer.vocab_size, tokenizer.end_of_text_id) == (10, 9)


def test_alphabet_of_no_texts_is_empty() -> None:
    assert alphabet_of([]) == ""


def test_a_given_alphabet_keeps_its_order() -> None:
    assert CharConfig(alphabet="ba").build().encode("ab").tolist() == [1, 0]


def test_characters_beyond_the_basic_plane() -> None:
    tokenizer = CharTokenizer("a😀\U0010ffff")
    assert tokenizer.encode("😀a\U0010ffff").tolist() == [1, 0, 2]


def test_unknown_characters_are_listed_with_their_first_places() -> None:
    with pytest.raises(TokenizerError) as caught:
        CharTokenizer("abc").encode("aéb😀é")
    message = str(caught.value)
    assert "2 unknown characters: 'é' (U+00E9) at 1, '😀' (U+1F600) at 3" in message
    assert "only the 3 characters of its corpus" in message
    assert "byte" in message


def test_places_count_from_the_start_of_the_whole_text() -> None:
    with pytest.raises(TokenizerError, match=r"'x' \(U\+0078\) at 15"):
        CharTokenizer("ab").encode("ab<|endoftext|>x", allow_special=True)


def test_many_unknown_characters_are_counted_not_all_listed() -> None:
    with pytest.raises(TokenizerError, match=r"25 unknown characters: .* and 17 more"):
        CharTokenizer("a").encode("abcdefghijklmnopqrstuvwxyz")


def test_an_unknown_character_in_a_batch_names_its_text() -> None:
    with pytest.raises(TokenizerError, match=r"^texts\[2\]: char: 1 unknown character: 'x' \(U\+0078\) at 1"):
        CharTokenizer("ab").encode_batch(["ab", "", "ax"])


def test_needs_a_corpus_or_an_alphabet() -> None:
    with pytest.raises(TokenizerError, match="give it a corpus, or an alphabet"):
        build("char")


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [("", "alphabet is empty"), ("abca", "'a' twice"), ("a\ud800", r"'\\ud800', half of a surrogate pair")],
)
def test_alphabets_that_cannot_be_used(alphabet: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        CharTokenizer(alphabet)


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(TokenizerError, match="the corpus it was made from has no text"):
        build("char", corpus=lambda: [""])
