import math

import pytest
import torch

from pellucid.model import DecoderConfig, DecoderLM
from pellucid.model.norms import LayerNormConfig
from pellucid.model.positions import LearnedPositionConfig


@pytest.fixture(scope="module")
def model() -> DecoderLM:
    config = DecoderConfig(
        vocab_size=300,
        d_model=128,
        num_layers=4,
        max_seq_len=200,
        norm=LayerNormConfig(),
        position=LearnedPositionConfig(),
        bias=True,
        tie_embeddings=False,
    )
    return DecoderLM(config)


def test_each_role_has_its_stated_distribution(model: DecoderLM) -> None:
    for name, role in model.parameter_roles().items():
        parameter = model.get_parameter(name)
        if role in ("gain", "bias"):
            assert (parameter == {"gain": 1.0, "bias": 0.0}[role]).all(), name
            continue
        wanted = 0.02 / math.sqrt(8) if role == "residual_matrix" else 0.02
        assert abs(parameter.mean()) < 5 * wanted / math.sqrt(parameter.numel()), name
        assert parameter.std().item() == pytest.approx(wanted, rel=5 / math.sqrt(2 * parameter.numel())), name


def test_no_two_parameters_share_their_draws(model: DecoderLM) -> None:
    starts = [p.flatten()[:8].tolist() for p in model.parameters() if p.dim() == 2]
    assert len({round(s[0] / s[1], 6) for s in starts}) == len(starts)


def test_the_first_loss_is_about_ln_v(model: DecoderLM) -> None:
    ids = torch.randint(0, 300, (8, 65), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(300), abs=0.1)


def test_weights_do_not_depend_on_the_global_generator() -> None:
    config = DecoderConfig(vocab_size=30, d_model=16)
    torch.manual_seed(1)
    first = DecoderLM(config)
    torch.manual_seed(2)
    again = DecoderLM(config)
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
