"""Log-probabilities on request."""

import numpy as np
import pytest
import torch

from pellucid.generate.sampling import log_probabilities


def test_they_are_those_of_the_softmax():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([3, 0, 49, 7])
    x = logits.double().numpy()
    expected = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    for row, found in enumerate(log_probabilities(logits, chosen, 3)):
        best = np.argsort(-expected[row])[:3]
        assert found.id == chosen[row]
        assert found.log_probability == pytest.approx(expected[row, found.id], abs=1e-5)
        assert [id_ for id_, _ in found.alternatives] == best.tolist()
        assert [value for _, value in found.alternatives] == pytest.approx(expected[row, best], abs=1e-5)


def test_half_precision_is_widened_first():
    logits = torch.tensor([[10.0, 0.0]], dtype=torch.bfloat16)
    assert log_probabilities(logits, torch.tensor([0]))[0].log_probability == pytest.approx(
        -4.54e-5, rel=1e-2
    )


def test_none_are_asked_for_and_more_than_there_are():
    logits = torch.zeros(1, 3)
    assert log_probabilities(logits, torch.tensor([1]))[0].alternatives == ()
    assert len(log_probabilities(logits, torch.tensor([1]), 20)[0].alternatives) == 3
    with pytest.raises(ValueError, match="alternatives must be 0 or more, not -1"):
        log_probabilities(logits, torch.tensor([1]), -1)
