from __future__ import annotations

import pytest

from pellucid.config import from_tree
from pellucid.errors import ConfigError, DataError
from pellucid.evaluate.tasks import CompletionTask, MultipleChoiceTask
from pellucid.evaluate.tasks.base import place_of
from pellucid.evaluate.tasks.templates import LABEL, TEXTS, fill, find

RECORD = {
    "goal": "  boil water ",
    "nested": {"deep": {"text": "found"}},
    "choices": [{"text": "a"}, {"text": "b"}],
    "number": 7,
    "nothing": None,
    "cause": "yes",
}


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{goal:strip}", "boil water"),
        ("{goal:strip:capitalize}!", "Boil water!"),
        ("{nested.deep.text} {{braces}} {number}", "found {braces} 7"),
        ("{absent|nested.deep.text}", "found"),
        ("{nested|number}", "7"),
        ("{goal:strip:last_word}", "water"),
        ("{goal:strip:but_last_word}", "boil"),
        ("{cause:said}", "because"),
    ],
)
def test_fields_are_filled_in(template: str, wanted: str):
    assert fill(template, RECORD, {"said": {"yes": "because"}}) == wanted


def test_a_path_goes_through_the_members_of_a_list():
    assert find("choices.text", RECORD, TEXTS) == ["a", "b"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{gaol}", r"no field 'gaol' \(fields: goal, nested, .*\); did you mean 'goal'\?"),
        ("{nested.deep.tex|other}", r"no field 'nested.deep.tex' or 'other'"),
        ("{nested}", r"field 'nested' holds \{'deep': .*\}, not text"),
        ("{nothing}", "field 'nothing' holds None, not text"),
        ("{goal:strip:said}", "field 'goal' holds 'boil water', which is none of 'yes'"),
        ("{goal:before_blank}", "there is no blank, _, in '  boil water '"),
    ],
)
def test_what_does_not_fit_is_told(template: str, message: str):
    with pytest.raises(DataError, match=message):
        fill(template, RECORD, {"said": {"yes": "because"}})


def test_nothing_of_an_object_is_reached_but_its_fields():
    with pytest.raises(DataError, match="no field '__class__"):
        fill("{__class__.__mro__}", RECORD, {})
    with pytest.raises(DataError, match=r"no field 'goal\.__len__'"):
        fill("{goal.__len__}", RECORD, {})
    with pytest.raises(DataError, match=r"no field 'choices\[0\]'"):
        fill("{choices[0]}", RECORD, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": "{goal"}, "context: '{goal' is no template: .*written twice"),
        ({"context": "{}"}, r"context: '\{\}': a field is written \{name\}"),
        ({"context": "{goal!r}"}, "a field is written"),
        ({"context": "{goal:captalize}"}, "no change 'captalize'; did you mean 'capitalize'"),
        ({"clean": [["[", ""]]}, r"clean: '\[' is no regular expression"),
        ({"clean": [["a{99999999999}", ""]]}, r"'a\{9+\}' is no regular expression"),
        ({"clean": [["x", "\\1"]]}, r"clean: .* cannot take the place of what 'x' matches: invalid group"),
        ({"clean": [["x", r"\g<name>"]]}, r"cannot take the place of what 'x' matches: unknown group"),
        ({"clean": [["x", r"\q"]]}, r"bad escape .*a backslash that is text is written twice"),
        ({"contxt": "x"}, "contxt: there is no such key.*did you mean 'context'"),
    ],
)
def test_a_faulty_description_is_told_at_once(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        from_tree(CompletionTask, {"context": "{goal}", "continuation": "{x}", **changes})


def test_words_are_changes_of_a_task():
    task = from_tree(
        CompletionTask,
        {"context": "{q:says}", "continuation": "{x}", "words": {"says": {"cause": "because"}}},
    )
    assert task.item({"q": "cause", "x": "y"}).requests[0].context == "because"


@pytest.mark.parametrize(
    ("answer", "names", "first", "place"),
    [
        (1, [], 0, 1),
        ("2", [], 1, 1),
        ("B", [], 0, 1),
        (" B ", ["A", "B"], 0, 1),
        ("2", ["1", "2"], 0, 1),
        ("2", ["A", "B"], 1, 1),
        (True, [], 0, 1),
        (False, [], 0, 0),
        ("three", ["one", "three"], 0, 1),
    ],
)
def test_a_label_is_a_name_a_letter_or_a_number(answer: object, names: list[str], first: int, place: int):
    assert place_of(answer, names, 2, first) == place


@pytest.mark.parametrize("answer", [2, -1, "", "C", "x", "-1"])
def test_a_label_out_of_range_is_refused(answer: object):
    with pytest.raises(DataError, match=r"the label .* means none of the 2 choices \(0 to 1\)"):
        place_of(answer, [], 2, 0)


@pytest.mark.parametrize("answer", ["7" * 5000, "-" + "7" * 5000])
def test_a_label_of_thousands_of_digits_is_refused_and_not_shown_whole(answer: str):
    with pytest.raises(DataError, match=r"the label '-?7{50,60}… means none of the 2 choices \(0 to 1\)"):
        place_of(answer, [], 2, 0)


def test_what_takes_the_place_may_name_a_group():
    task = from_tree(
        CompletionTask,
        {"context": "{x}", "continuation": "{x}", "clean": [["(?P<a>b)", r"<\1\g<a>>"], ["c", r"\\"]]},
    )
    assert task.item({"x": "abc"}).requests[0].context == "a<bb>\\"


def test_a_label_that_always_is_the_same_must_be_one_of_the_choices():
    task = MultipleChoiceTask(choices=("{a}", "{b}"), label=2)
    with pytest.raises(DataError, match="the label 2 means none"):
        task.item({"a": "x", "b": "y"})


def test_a_label_that_is_no_label():
    with pytest.raises(DataError, match="field 'number' holds"):
        find("number", {"number": [1]}, LABEL)
