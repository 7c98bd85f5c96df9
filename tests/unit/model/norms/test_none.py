import torch

from pellucid.config import members
from pellucid.model.norms import NoNorm, NormConfig


def test_gives_back_the_very_tensor_and_has_no_parameters() -> None:
    norm = members(NormConfig)["none"]().build(16)
    x = torch.ones(2, 3, 16, dtype=torch.bfloat16)
    assert isinstance(norm, NoNorm)
    assert norm(x) is x
    assert not norm.state_dict()
