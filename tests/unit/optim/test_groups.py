import pytest
from torch import nn

from pellucid.model import DecoderConfig, DecoderLM
from pellucid.model.feedforward import GELUConfig
from pellucid.model.norms import LayerNormConfig
from pellucid.model.positions import LearnedPositionConfig
from pellucid.optim import group_by_role

SIZES = {"vocab_size": 13, "d_model": 8, "num_layers": 2, "num_heads": 2, "max_seq_len": 6}
CONFIGS = {
    "default": DecoderConfig(**SIZES),
    "every role": DecoderConfig(
        **SIZES,
        norm=LayerNormConfig(),
        position=LearnedPositionConfig(),
        feed_forward=GELUConfig(),
        bias=True,
        tie_embeddings=False,
    ),
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> DecoderLM:
    return CONFIGS[request.param].build()


def test_every_parameter_is_in_exactly_one_group(model: DecoderLM) -> None:
    groups = group_by_role(model, model.parameter_roles())
    grouped = [(name, parameter) for group in groups for name, parameter in group.parameters.items()]
    named = dict(model.named_parameters())
    assert sorted(name for name, _ in grouped) == sorted(named)
    assert all(parameter is named[name] for name, parameter in grouped)


def test_a_group_is_of_one_role_and_a_role_in_one_group(model: DecoderLM) -> None:
    groups, roles = group_by_role(model, model.parameter_roles()), model.parameter_roles()
    assert sorted(group.role for group in groups) == sorted(set(roles.values()))
    assert all(roles[name] == group.role for group in groups for name in group.parameters)


def test_a_group_knows_its_bytes(model: DecoderLM) -> None:
    groups = group_by_role(model, model.parameter_roles())
    assert sum(group.nbytes for group in groups) == 4 * sum(p.numel() for p in model.parameters())


def test_a_group_keeps_the_order_of_the_model(model: DecoderLM) -> None:
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    for group in group_by_role(model, model.parameter_roles()):
        places = [order[name] for name in group.parameters]
        assert places == sorted(places)


def test_a_parameter_without_a_role_is_an_error() -> None:
    with pytest.raises(KeyError, match="bias"):
        group_by_role(nn.Linear(2, 2), {"weight": "matrix"})
