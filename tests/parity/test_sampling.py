"""Each sampling step, and all of them in a row, equal the logits processors of transformers."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pellucid.generate.sampling import SamplingConfig

B, T, V = 16, 12, 300

CASES = [
    ({"repetition_penalty": 1.3}, [RepetitionPenaltyLogitsProcessor(1.3)]),
    ({"repetition_penalty": 0.7}, [RepetitionPenaltyLogitsProcessor(0.7)]),
    ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
    ({"temperature": 1.9}, [TemperatureLogitsWarper(1.9)]),
    ({"top_k": 1}, [TopKLogitsWarper(1)]),
    ({"top_k": 40}, [TopKLogitsWarper(40)]),
    ({"top_k": 1000}, [TopKLogitsWarper(1000)]),
    ({"top_p": 0.01}, [TopPLogitsWarper(0.01)]),
    ({"top_p": 0.5}, [TopPLogitsWarper(0.5)]),
    ({"top_p": 0.95}, [TopPLogitsWarper(0.95)]),
    (
        {"repetition_penalty": 1.2, "temperature": 0.8, "top_k": 50, "top_p": 0.9},
        [
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(0.8),
            TopKLogitsWarper(50),
            TopPLogitsWarper(0.9),
        ],
    ),
]


@pytest.mark.parametrize(("settings", "processors"), CASES, ids=[str(settings) for settings, _ in CASES])
@pytest.mark.parametrize("seed", range(3))
def test_equals_transformers(settings, processors, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, V, generator=generator)
    ids = torch.randint(V, (B, T), generator=generator)

    ours = logits
    steps = SamplingConfig(**settings).steps()
    for step in steps:
        ours = step(ours, ids)

    assert len(steps) == len(processors)
    torch.testing.assert_close(ours, LogitsProcessorList(processors)(ids, logits), rtol=0, atol=0)
