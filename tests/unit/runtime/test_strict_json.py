"""JSON without words that JSON does not have."""

import json
import math

from pellucid.runtime.strict_json import to_json


def test_what_is_not_finite_is_null() -> None:
    value = {"a": [1.5, math.inf, {"b": (-math.inf, "NaN", True, None)}], "c": math.nan, "d": 3}
    assert json.loads(to_json(value)) == {
        "a": [1.5, None, {"b": [None, "NaN", True, None]}],
        "c": None,
        "d": 3,
    }


def test_finite_values_are_as_json_writes_them() -> None:
    value = {"a": [0.1, 1e300], "b": "é"}
    assert to_json(value) == json.dumps(value)
