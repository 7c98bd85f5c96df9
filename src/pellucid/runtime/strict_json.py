"""JSON that every reader takes: what is not finite is null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast


def to_json(value: Any) -> str:
    """`json.dumps`, with null for NaN and infinities, which JSON has no words for."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in cast(list[Any], value)]
    return value
