"""Sliding windows: every target once, with the context it was promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import ConfigError
from pellucid.evaluate.windows import Span, spans


def test_windows_by_hand() -> None:
    """Seven ids, of which the first is context: windows of 4 that move by 2."""
    assert list(spans([7], unscored=1, window=4, stride=2)) == [Span(0, 0, 4, 1), Span(0, 2, 6, 5)]
    assert list(spans([6], unscored=1, window=4, stride=4)) == [Span(0, 0, 4, 1), Span(0, 4, 5, 5)]
    assert list(spans([1, 0, 2], unscored=0, window=4, stride=4)) == [Span(2, 0, 1, 1)]


@given(
    lengths=st.lists(st.integers(0, 60), max_size=4),
    unscored=st.integers(0, 5),
    window=st.integers(1, 20),
    data=st.data(),
)
def test_every_target_is_scored_once_with_its_context(lengths, unscored, window, data) -> None:
    stride = data.draw(st.integers(1, window))
    scored: dict[tuple[int, int], int] = {}
    for span in spans(lengths, unscored=unscored, window=window, stride=stride):
        assert 0 < span.stop - span.start <= window
        assert span.start < span.first <= span.stop < lengths[span.sequence]
        for place in range(span.first, span.stop + 1):
            assert (span.sequence, place) not in scored
            scored[span.sequence, place] = place - span.start
    wanted = {(n, p) for n, length in enumerate(lengths) for p in range(max(1, unscored), length)}
    assert scored.keys() == wanted
    assert all(context >= min(place, window - stride + 1) for (_, place), context in scored.items())


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_a_stride_that_does_not_fit(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"--stride {stride}: wanted 1 to 4"):
        list(spans([7], unscored=1, window=4, stride=stride))
