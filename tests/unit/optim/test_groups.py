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


def test_only_matrices_decay(model: DecoderLM) -> None:
    decayed, others = group_by_role(model, model.parameter_roles())
    assert (decayed.is_decayed, others.is_decayed) == (True, False)
    roles = model.parameter_roles()
    assert {roles[name] for name in decayed.parameters} == {"matrix", "residual_matrix", "head"} & set(
        roles.values()
    )
    assert all(parameter.dim() == 2 for parameter in decayed.parameters.values())
    tables = {name for name in roles if name.endswith(".table")}
    assert {name for name, parameter in others.parameters.items() if parameter.dim() > 1} == tables


def test_a_group_keeps_the_order_of_the_model(model: DecoderLM) -> None:
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    for group in group_by_role(model, model.parameter_roles()):
        places = [order[name] for name in group.parameters]
        assert places == sorted(places)


def test_a_parameter_without_a_role_is_an_error() -> None:
    with pytest.raises(KeyError, match="bias"):
        group_by_role(nn.Linear(2, 2), {"weight": "matrix"})
