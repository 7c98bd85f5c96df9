"""samples.jsonl: what was written at each evaluation."""

import json

from pellucid.train.facts import EvaluationFacts, Request
from pellucid.train.hooks import Samples


def test_each_evaluation_adds_a_line_and_shows_the_text(tmp_path):
    texts, shown = iter(["one\n", "zwei ä\u2028"]), []
    hook = Samples(tmp_path / "samples.jsonl", "To be", lambda: next(texts), shown.append)
    for step in (5, 10):
        assert hook.on_evaluation(EvaluationFacts(step, 1.0, 2.7, 0.4, 7, True, 0.1, 2.1)) is Request.NOTHING
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "prompt": "To be", "text": "one\n"},
        {"step": 10, "prompt": "To be", "text": "zwei ä\u2028"},
    ]
    assert shown == ["one\n", "zwei ä\u2028"]
