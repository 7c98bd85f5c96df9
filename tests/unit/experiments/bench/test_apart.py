"""A row in a process of its own."""

import pytest

from pellucid.errors import TrainingError
from pellucid.experiments.bench.apart import measure_apart


def test_a_process_that_fails_is_quoted():
    with pytest.raises(
        TrainingError, match=r"ended with status 2:\nerror: .*there is no run preset 'nonesuch'"
    ):
        measure_apart(["nonesuch"], "training", steps=1)
