"""Pieces: no half character, no beginning of a stop text, and the same text however ids cut it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generate.pieces import Pieces


class Cuts:
    """A tokenizer whose id n is the n-th of these byte strings."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def decode_bytes(self, ids: list[int]) -> bytes:
        return b"".join(self.parts[i] for i in ids)


def shown(parts: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], Pieces]:
    """What each id lets show, and at last what the end does; nothing is pushed behind a stop text."""
    pieces, seen = Pieces(Cuts(parts), stops), []
    for new in range(len(parts)):
        seen.append(pieces.push(new))
        if pieces.is_stopped:
            break
    return [*seen, pieces.flush()], pieces


def cut(text: bytes, places: set[int]) -> list[bytes]:
    return [text[a:b] for a, b in pairwise(sorted({0, *places, len(text)}))]


def up_to_a_stop(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """By the definition: a character at a time until a stop text ends it; the longest of those that do goes."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


@pytest.mark.parametrize(
    ("parts", "stops", "expected", "is_stopped"),
    [
        (["one", " t", "wo"], (" two",), ["one", "", "", ""], True),
        (["a\n", "\n", "b"], ("\n\n",), ["a", "", ""], True),
        (["a\n", "b"], ("\n\n",), ["a", "\nb", ""], False),
        (["x", "<", "e", "n"], ("<end>",), ["x", "", "", "", "<en"], False),
        (["aab", "x"], ("ab",), ["a", ""], True),
        (["aa", "ab"], ("aab",), ["", "a", ""], True),
        (["ab", "cd"], ("c", "bcd"), ["a", "b", ""], True),
        (["abcd"], ("c", "bcd"), ["ab", ""], True),
        (["ab", "c"], ("bc", "c"), ["a", "", ""], True),
        (["stop and more"], ("stop",), ["", ""], True),
        (["no stop"], (), ["no stop", ""], False),
    ],
)
def test_stop_texts_across_the_borders_of_ids(
    parts: list[str], stops: tuple[str, ...], expected: list[str], is_stopped: bool
) -> None:
    seen, pieces = shown([part.encode() for part in parts], stops)
    assert seen == expected
    assert pieces.text == "".join(expected)
    assert pieces.is_stopped == is_stopped


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_stop_text_of_cut_characters_is_found(place: int) -> None:
    text = "a🙂b".encode()
    seen, _ = shown([text[: 1 + place], text[1 + place :]], ("🙂",))
    assert seen == ["a", "", ""]


def test_what_comes_behind_a_stop_text_is_never_shown() -> None:
    pieces = Pieces(Cuts([b"a.", b"b", "é".encode()[:1]]), (".",))
    assert [pieces.push(new) for new in range(3)] == ["a", "", ""]
    assert pieces.flush() == ""
    assert pieces.text == "a"


def test_half_a_character_at_the_end_may_still_be_a_stop_text() -> None:
    _, pieces = shown([b"a", "é".encode()[:1]], ("\ufffd",))
    assert pieces.is_stopped
    assert pieces.text == "a"


letters = st.text(alphabet="ab🙂é", max_size=14)
stop_texts = st.lists(st.text(alphabet="ab🙂é", min_size=1, max_size=4), max_size=3).map(tuple)
places = st.sets(st.integers(1, 40))


@given(letters, stop_texts, places)
def test_text_ends_at_the_same_stop_however_it_is_cut(
    text: str, stops: tuple[str, ...], where: set[int]
) -> None:
    said = text.encode()
    seen, pieces = shown(cut(said, {place for place in where if place < len(said)}), stops)
    assert (pieces.text, pieces.is_stopped) == up_to_a_stop(text, stops)
    assert "".join(seen) == pieces.text


@given(st.binary(max_size=30), places, stop_texts)
def test_pieces_are_whole_characters_and_together_the_text(
    said: bytes, where: set[int], stops: tuple[str, ...]
) -> None:
    seen, pieces = shown(cut(said, {place for place in where if place < len(said)}), stops)
    assert "".join(seen) == pieces.text
    assert pieces.text == up_to_a_stop(said.decode(errors="replace"), stops)[0]
    for piece in seen:
        assert piece.encode().decode() == piece  # no surrogate of half a character


@given(letters, places)
def test_what_is_whole_is_shown_at_once(text: str, where: set[int]) -> None:
    parts = cut(text.encode(), {place for place in where if place < len(text.encode())})
    seen, _ = shown(parts)
    for number in range(len(parts)):
        whole = b"".join(parts[: number + 1]).decode(errors="ignore")
        assert "".join(seen[: number + 1]) == whole
