"""Initial weights: the plan by role, and that every parameter got what the plan says."""

import math

import pytest
import torch

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM, Transformer
from pellucid.model.init import Initial, plan_initial_weights

PARTS = {
    "vocab_size": 300,
    "d_model": 128,
    "max_seq_len": 200,
    "norm": {"kind": "layernorm"},
    "bias": True,
    "tie_embeddings": False,
}


def decoder(**over) -> DecoderLM:
    tree = PARTS | {"num_layers": 4, "position": {"kind": "learned"}} | over
    return from_tree(DecoderConfig, tree).build()


def encoder_decoder(**over) -> EncoderDecoderLM:
    tree = PARTS | {"num_encoder_layers": 3, "num_decoder_layers": 5, "position": {"kind": "t5"}} | over
    return from_tree(EncoderDecoderConfig, tree).build()


def plan(model: Transformer, branches) -> dict[str, Initial]:
    return {row.name: row for row in plan_initial_weights(model, model.parameter_roles(), branches)}


def two_stacks(name: str) -> int:
    return 2 * 3 if name.startswith("encoder.") else 3 * 5


MODELS = {
    "decoder": (decoder, lambda _: 2 * 4),
    "encoder-decoder": (encoder_decoder, two_stacks),
    "mixture of experts": (
        lambda: decoder(feed_forward={"kind": "moe", "num_experts": 3}, bias=False),
        lambda _: 2 * 4,
    ),
    "norms on heads, sandwich": (
        lambda: decoder(attention={"qk_norm": True}, block="sandwich_norm"),
        lambda _: 2 * 4,
    ),
}
every_model = pytest.mark.parametrize(("build", "branches"), MODELS.values(), ids=MODELS)


@every_model
def test_every_parameter_is_planned_once_and_has_what_was_planned(build, branches) -> None:
    model = build()
    rows = plan(model, branches)
    assert list(rows) == [name for name, _ in model.named_parameters()]
    for name, row in rows.items():
        parameter = model.get_parameter(name)
        assert row.shape == tuple(parameter.shape)
        if row.distribution == "constant":
            assert (parameter == row.value).all(), name
            continue
        # Five standard errors: of a mean, and of a standard deviation.
        assert abs(parameter.mean()) < 5 * row.value / math.sqrt(parameter.numel()), name
        assert parameter.std().item() == pytest.approx(row.value, rel=5 / math.sqrt(2 * parameter.numel())), (
            name
        )


@every_model
def test_the_plan_goes_by_role_alone_but_for_residual_matrices(build, branches) -> None:
    rows = plan(build(), branches).values()
    values = {(row.role, row.distribution, row.value) for row in rows if row.role != "residual_matrix"}
    assert values <= {
        ("embedding", "normal", 0.02),
        ("position", "normal", 0.02),
        ("head", "normal", 0.02),
        ("matrix", "normal", 0.02),
        ("gain", "constant", 1.0),
        ("bias", "constant", 0.0),
    }


def test_a_decoders_residual_matrices_are_scaled_by_its_two_branches_a_layer() -> None:
    """Against the weights themselves, as the model's own constructor scaled them."""
    model = decoder()
    scaled = {name for name, role in model.parameter_roles().items() if role == "residual_matrix"}
    assert scaled == {
        f"blocks.{layer}.{part}.weight"
        for layer in range(4)
        for part in ("attention.output", "feed_forward.down")
    }
    for name in scaled:
        assert model.get_parameter(name).std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.03), name


def test_an_encoder_has_two_branches_a_layer_and_its_decoder_three() -> None:
    model = encoder_decoder()
    for name, role in model.parameter_roles().items():
        if role != "residual_matrix":
            continue
        branches = 2 * 3 if name.startswith("encoder.") else 3 * 5
        wanted = pytest.approx(0.02 / math.sqrt(branches), rel=0.03)
        assert model.get_parameter(name).std().item() == wanted, name
    crossing = [
        name for name, role in model.parameter_roles().items() if "cross_attention.output.weight" in name
    ]
    assert {model.parameter_roles()[name] for name in crossing} == {"residual_matrix"}
    assert len(crossing) == 5


def test_a_row_of_the_report_says_what_a_parameter_got() -> None:
    rows = plan(decoder(), lambda _: 8)
    assert str(rows["embedding.table"]) == "embedding.table [300, 128] (embedding): normal, std 0.02"
    output = "blocks.0.attention.output.weight"
    assert str(rows[output]) == f"{output} [128, 128] (residual_matrix): normal, std 0.0070711"
    assert str(rows["final_norm.gain"]) == "final_norm.gain [128] (gain): 1"
    assert str(rows["final_norm.bias"]) == "final_norm.bias [128] (bias): 0"


@pytest.mark.parametrize(
    ("build", "tables"),
    [
        (decoder, ("embedding.table", "output.weight")),
        (
            lambda **over: encoder_decoder(share_embeddings=False, **over),
            ("embedding.table", "target_embedding.table", "output.weight"),
        ),
    ],
    ids=["decoder", "encoder-decoder"],
)
def test_padded_rows_are_zero_and_the_others_those_of_the_unpadded_table(build, tables) -> None:
    padded, plain = build(vocab_multiple=128), build()
    for table in tables:
        rows = padded.get_parameter(table)
        assert rows.shape == (384, 128)
        assert (rows[300:] == 0).all()
        torch.testing.assert_close(rows[:300], plain.get_parameter(table), rtol=0, atol=0)


def test_the_rest_of_a_model_does_not_notice_the_padding() -> None:
    padded, plain = encoder_decoder(vocab_multiple=128), encoder_decoder()
    for name, parameter in plain.named_parameters():
        if parameter.shape[0] != 300:
            torch.testing.assert_close(padded.get_parameter(name), parameter, rtol=0, atol=0)


@pytest.mark.parametrize("build", [decoder, encoder_decoder])
def test_no_two_parameters_share_their_draws(build) -> None:
    starts = [p.flatten()[:8].tolist() for p in build().parameters() if p.dim() == 2]
    assert len({round(s[0] / s[1], 6) for s in starts}) == len(starts)


def test_the_first_loss_is_about_ln_v() -> None:
    ids = torch.randint(0, 300, (8, 65), generator=torch.Generator().manual_seed(0))
    of_decoder, of_both = decoder(vocab_multiple=128), encoder_decoder(vocab_multiple=128)
    with torch.no_grad():
        for logits in (of_decoder(ids[:, :-1]), of_both(ids, ids[:, :-1])):
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            assert loss.item() == pytest.approx(math.log(300), abs=0.1)


@pytest.mark.parametrize("build", [decoder, encoder_decoder])
def test_weights_do_not_depend_on_the_global_generator(build) -> None:
    torch.manual_seed(1)
    first = build()
    torch.manual_seed(2)
    torch.testing.assert_close(first.state_dict(), build().state_dict(), rtol=0, atol=0)


def test_another_seed_gives_other_weights() -> None:
    config = from_tree(DecoderConfig, PARTS)
    first, second = config.build(seed=1), config.build(seed=2)
    assert not torch.equal(first.embedding.table, second.embedding.table)
