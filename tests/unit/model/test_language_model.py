"""What decoders and encoder-decoders do alike: the head, roles, forms of prompts."""

import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig, EncoderDecoderLM, Transformer

VOCABULARY, D_MODEL = 13, 8
SIZES = {"vocab_size": VOCABULARY, "d_model": D_MODEL, "num_heads": 2, "max_seq_len": 24}
KINDS = {
    "decoder": (DecoderConfig, {"num_layers": 2}),
    "encoder_decoder": (EncoderDecoderConfig, {"num_encoder_layers": 2, "num_decoder_layers": 2}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def build(kind: str, **fields: object) -> Transformer:
    cls, depth = KINDS[kind]
    return from_tree(cls, SIZES | depth | fields).build(seed=1).double().eval()


def widened(model: Transformer) -> Transformer:
    """Weights drawn wide, each from a generator of its own, the padding of tables too."""
    for number, (name, parameter) in enumerate(model.named_parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.normal_(generator=generator, std=0.5)
        if name.endswith("gain"):
            parameter.add_(1)
    return model


def draw_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def logits_of(model: Transformer) -> Tensor:
    ids = draw_ids(2, 6)
    return model(ids) if isinstance(model, DecoderLM) else model(draw_ids(2, 5, seed=1), ids)


def states_of(model: Transformer) -> Tensor:
    ids = draw_ids(2, 6)
    if isinstance(model, EncoderDecoderLM):
        return model.hidden(ids, encoder_ids=draw_ids(2, 5, seed=1)).states
    return model.hidden(ids).states


# The head -----------------------------------------------------------------------------------------------


@kinds
def test_a_tied_head_is_the_token_table(kind: str) -> None:
    model = widened(build(kind))
    assert model.output is None
    assert model.head_parameters().weight is model.embedding.table
    torch.testing.assert_close(logits_of(model), states_of(model) @ model.embedding.table.T)


@kinds
def test_a_free_head_is_a_matrix_of_its_own(kind: str) -> None:
    model = widened(build(kind, tie_embeddings=False))
    assert model.head_parameters().weight is model.output.weight
    torch.testing.assert_close(logits_of(model), states_of(model) @ model.output.weight.T)


@kinds
@pytest.mark.parametrize("tie", [True, False])
def test_a_padded_vocabulary_changes_no_result(kind: str, tie: bool) -> None:
    plain, padded = (build(kind, tie_embeddings=tie, vocab_multiple=multiple) for multiple in (1, 8))
    assert padded.head_parameters().weight.shape == (16, D_MODEL)
    assert padded.embedding.table.shape == (16, D_MODEL)
    assert not padded.embedding.table[VOCABULARY:].any()
    assert torch.equal(padded.embedding.table[:VOCABULARY], plain.embedding.table)
    assert logits_of(padded).shape == (2, 6, VOCABULARY)
    torch.testing.assert_close(logits_of(padded), logits_of(plain), rtol=0, atol=1e-14)
    widened(padded)  # whatever lies in the padding
    expected = logits_of(padded)
    for parameter in {padded.embedding.table, padded.head_parameters().weight}:
        parameter[VOCABULARY:] = 1e6
    assert torch.equal(logits_of(padded), expected)


@kinds
def test_a_vocabulary_that_is_a_multiple_already_is_not_padded(kind: str) -> None:
    assert build(kind, vocab_size=16, vocab_multiple=8).embedding.table.shape == (16, D_MODEL)


@kinds
def test_capped_logits_stay_inside_the_cap_and_keep_their_order(kind: str) -> None:
    free, capped = widened(build(kind)), widened(build(kind, logit_softcap=2.5))
    assert logits_of(free).abs().max() > 2.5
    assert logits_of(capped).abs().max() < 2.5
    assert capped.head_parameters().softcap == 2.5
    torch.testing.assert_close(logits_of(capped), 2.5 * torch.tanh(logits_of(free) / 2.5))
    assert torch.equal(logits_of(capped).argsort(dim=-1), logits_of(free).argsort(dim=-1))


def test_scaled_embeddings_are_larger_by_the_root_of_d_model_and_the_head_is_not() -> None:
    plain, scaled = widened(build("decoder")), widened(build("decoder", scale_embeddings=True))
    ids = draw_ids(2, 6)
    torch.testing.assert_close(scaled.embedding(ids), plain.embedding(ids) * D_MODEL**0.5)
    assert torch.equal(scaled.head(states_of(plain)), plain.head(states_of(plain)))


# Roles --------------------------------------------------------------------------------------------------


def test_every_parameter_has_its_role() -> None:
    model = build(
        "encoder_decoder",
        share_embeddings=False,
        tie_embeddings=False,
        bias=True,
        norm={"kind": "layernorm"},
        position={"kind": "t5"},
        attention={"qk_norm": True},
    )
    roles = model.parameter_roles()
    assert set(roles) == {name for name, _ in model.named_parameters()}
    expected = {
        "embedding.table": "embedding",
        "target_embedding.table": "embedding",
        "output.weight": "head",
        "encoder.position.table": "position",
        "decoder.position.table": "position",
        "encoder.final_norm.gain": "gain",
        "decoder.final_norm.bias": "bias",
        "decoder.blocks.1.cross_attention_norm.gain": "gain",
        "decoder.blocks.1.cross_attention.query_norm.gain": "gain",
        "decoder.blocks.1.cross_attention.query.weight": "matrix",
        "decoder.blocks.1.cross_attention.output.weight": "residual_matrix",
        "decoder.blocks.1.cross_attention.output.bias": "bias",
        "encoder.blocks.0.attention.output.weight": "residual_matrix",
        "encoder.blocks.0.feed_forward.down.weight": "residual_matrix",
        "encoder.blocks.0.feed_forward.up.weight": "matrix",
        "encoder.blocks.0.feed_forward.up.bias": "bias",
    }
    assert {name: roles[name] for name in expected} == expected


@kinds
def test_all_blocks_are_listed_in_their_order(kind: str) -> None:
    model = build(kind)
    halves = [model] if kind == "decoder" else [model.encoder, model.decoder]
    assert model.all_blocks == [block for half in halves for block in half.blocks]


@kinds
def test_a_model_without_a_vocabulary_says_what_to_give(kind: str) -> None:
    with pytest.raises(ValueError, match=r"needs vocab_size to build a model, e\.g\. vocab_size=50257"):
        build(kind, vocab_size=None)


# Forms of prompts ---------------------------------------------------------------------------------------


@kinds
def test_the_answer_has_the_prompts_form(kind: str) -> None:
    model, prompts = widened(build(kind)), [draw_ids(4), draw_ids(2, seed=1)]
    continues = model.continues_prompt
    assert continues == (kind == "decoder")
    batch = model.generate(draw_ids(3, 4), 5)
    assert batch.shape == (3, 9 if continues else 5)
    alone = model.generate(prompts[0], 5)
    assert alone.shape == (9 if continues else 5,)
    several = model.generate(prompts, 5)
    assert isinstance(several, list)
    for prompt, ids in zip(prompts, several, strict=True):
        assert torch.equal(ids, model.generate(prompt, 5))
        if continues:
            assert torch.equal(ids[: len(prompt)], prompt)


@kinds
def test_no_new_ids(kind: str) -> None:
    ids = widened(build(kind)).generate(draw_ids(2, 4), 0)
    assert ids.tolist() == (draw_ids(2, 4).tolist() if kind == "decoder" else [[], []])


@kinds
def test_generation_leaves_the_mode_as_it_was(kind: str) -> None:
    model = widened(build(kind, dropout=0.5))
    expected = model.generate(draw_ids(2, 4), 6)
    assert torch.equal(model.train().generate(draw_ids(2, 4), 6), expected)
    assert model.training


@kinds
def test_an_input_longer_than_max_seq_len_is_refused(kind: str) -> None:
    model, source = build(kind), [draw_ids(1, 4)] if kind == "encoder_decoder" else []
    with pytest.raises(ValueError, match=r"25 positions \(cached ones included\) are more than max_seq_len"):
        model(*source, draw_ids(1, 25))
