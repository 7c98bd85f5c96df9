"""What the data table refuses before any data is opened, and what prepared data is refused for."""

from pathlib import Path

import pytest

from pellucid.config import Tree, from_tree
from pellucid.data.cache import prepare_cached
from pellucid.data.config import DataConfig
from pellucid.data.prepare import prepare
from pellucid.data.sources import open_source
from pellucid.data.sources.base import Reading
from pellucid.errors import ConfigError, DataError
from pellucid.tokenizers import ByteConfig, ByteTokenizer

MEMBERS = [{"path": "a.jsonl", "weight": 3}, {"path": "b.jsonl"}]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"mixture": MEMBERS, "path": "c.txt"}, "mixture and path: 'c.txt' would not be read"),
        ({"mixture": MEMBERS, "stream": {"enabled": True}}, "only prepared data can be mixed"),
        ({"mixture": MEMBERS, "objective": {"kind": "paired"}}, r"data\.mixture: pairs are prepared whole"),
        ({"stream": {"enabled": True}, "objective": {"kind": "paired"}}, r"data\.stream\.enabled: pairs are"),
        ({"stream": {"enabled": True}, "deduplicate": True}, "deduplicate and stream.enabled"),
        (
            {"stream": {"enabled": True}, "objective": {"kind": "causal", "packing": "best_fit"}},
            "'best_fit' needs to know all documents",
        ),
        ({"errors": "ignore"}, "'strict', 'replace' or 'skip'"),
    ],
)
def test_what_does_not_go_together_is_said(tree: Tree, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_tree(DataConfig, tree)


def test_a_mixture_needs_no_path() -> None:
    assert [member.weight for member in from_tree(DataConfig, {"mixture": MEMBERS}).mixture] == [3, 1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"deduplicate": True}, r"data\.deduplicate=False, and True is asked for"),
        ({"reading": Reading(document_marker="***")}, r"data\.document_marker=None, and \*\*\* is asked for"),
    ],
)
def test_prepared_data_that_was_made_without_what_is_asked_for_is_refused(
    tmp_path: Path, asked, message
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"text": "document {number}"}}\n' for number in range(40)))
    prepare(open_source(file), ByteTokenizer(), tmp_path / "out")
    assert prepare_cached(str(tmp_path / "out"), ByteConfig()) == tmp_path / "out"
    with pytest.raises(DataError, match=message):
        prepare_cached(str(tmp_path / "out"), ByteConfig(), **asked)
