"""What a decoder promises besides what both families do: prefixes, documents, padding, the size of its vocabulary."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.usefixtures("compiles_nothing")

V = 29


def moved(case, model, at: int, **how: Tensor) -> Tensor:
    """Whether each place's states change with the id at place `at`: [B, T]."""
    ids = case.ids()
    changed = ids.clone()
    changed[:, at] = (changed[:, at] + 1) % V
    before, after = (model.hidden(x, **how).states for x in (ids, changed))
    return (after - before).abs().amax(dim=-1) > 0


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def test_ids_of_a_prefix_see_each_other_and_nothing_later(changes) -> None:
    case = changes.case("decoder", {})
    model, prefix = case.build(), torch.tensor([5, 2])
    for at in range(12):
        seen_by = moved(case, model, at, prefix_lengths=prefix)
        for row, length in enumerate(prefix.tolist()):
            first = 0 if at < length else at
            assert not seen_by[row, :first].any()
            assert seen_by[row, first:].all()


def test_no_prefix_is_causal_and_a_whole_one_sees_everything(pair) -> None:
    if pair.reads_source:
        return
    model, ids = pair.build(), pair.ids()
    causal = model.hidden(ids).states
    none = model.hidden(ids, prefix_lengths=torch.zeros(2, dtype=torch.long)).states
    torch.testing.assert_close(none, causal, rtol=0, atol=1e-12)
    if pair.config.attention.window is None:
        assert moved(pair, model, 11, prefix_lengths=torch.tensor([12, 12])).all()


def test_documents_and_padding_are_apart_to_the_bit(case) -> None:
    if (
        case.reads_source or case.has_experts
    ):  # whose experts compute their tokens in an order that depends on all
        return
    model = case.build()
    documents = torch.tensor([[0] * 4 + [1] * 5 + [-1] * 3, [-1] * 3 + [7] * 9])
    for at in (0, 2, 5, 10):
        seen_by = moved(case, model, at, documents=documents)
        for row in range(2):
            own = documents[row] == documents[row, at]
            assert not seen_by[row, ~own].any()
            assert seen_by[row, at]
            if documents[row, at] == -1:
                assert not seen_by[row, documents[row] >= 0].any()


def test_continuations_behind_one_beginning_are_what_each_is_alone(pair) -> None:
    if pair.reads_source or pair.config.attention.window is not None:  # a window counts columns
        return
    model, ids = pair.build(), pair.ids()
    documents = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3, [0] * 2 + [1] * 4 + [2] * 5 + [-1]])
    positions = torch.tensor([[*range(9), *range(5, 8)], [*range(6), *range(2, 7), 0]])
    shared = torch.tensor([5, 2])
    together = model.hidden(ids, documents=documents, positions=positions, shared_lengths=shared).states
    for row, length in enumerate(shared.tolist()):
        for number in (1, 2):
            own = documents[row] == number
            alone = model.hidden(torch.cat((ids[row, :length], ids[row, own]))[None]).states[0]
            torch.testing.assert_close(together[row, own], alone[length:], rtol=0, atol=1e-12)
            torch.testing.assert_close(together[row, :length], alone[:length], rtol=0, atol=1e-12)


def test_a_shared_beginning_needs_documents_and_positions(changes) -> None:
    case = changes.case("decoder", {})
    with pytest.raises(ValueError, match="shared_lengths need `documents` and `positions`"):
        case.build().hidden(case.ids(), shared_lengths=torch.tensor([2, 2]))


def test_a_padded_vocabulary_changes_no_logit_and_learns_nothing(changes) -> None:
    for family in ("decoder", "encoder_decoder"):
        for tied in (True, False):
            plain = changes.case(family, {"tie_embeddings": tied})
            padded = plain.with_changes(vocab_multiple=8)
            small, large = plain.config.build().double().eval(), padded.config.build().double().eval()
            ids = plain.ids()
            torch.testing.assert_close(
                padded.logits(large, ids), plain.logits(small, ids), rtol=0, atol=1e-12
            )
            with torch.enable_grad():
                _, gradients = padded.loss_and_gradients(large)
            for name, role in large.parameter_roles().items():
                if role in ("embedding", "head"):
                    assert large.get_parameter(name).shape == (32, 16)
                    assert not large.get_parameter(name)[V:].any()
                    gradient = gradients[name]
                    assert gradient is not None
                    assert not gradient[V:].any(), name
                    assert gradient[:V].any(dim=1).all() or role == "embedding"


def test_embeddings_are_scaled_and_logits_capped(changes) -> None:
    plain = changes.case("decoder", {"tie_embeddings": False})
    scaled = plain.with_changes(scale_embeddings=True).config.build().double().eval()
    model, ids = plain.config.build().double().eval(), plain.ids()
    scaled.load_state_dict(model.state_dict())
    model.embedding.table.mul_(4)  # sqrt(16)
    assert torch.equal(scaled(ids), model(ids))
    logits = model(ids)
    capped = plain.with_changes(logit_softcap=0.01).config.build().double().eval()
    capped.load_state_dict(model.state_dict())
    torch.testing.assert_close(capped(ids), 0.01 * torch.tanh(logits / 0.01), rtol=0, atol=1e-15)
    assert capped(ids).abs().max() <= 0.01


def test_more_than_max_seq_len_is_refused(changes) -> None:
    model = changes.case("decoder", {}).build()
    with pytest.raises(ValueError, match=r"17 positions .* are more than max_seq_len \(16\)"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_attention_weights_are_what_attention_uses(case) -> None:
    """`weights` of the first block, times its values, is what that block's attention gives."""
    if case.reads_source:
        return
    model, ids = case.build(), case.ids()
    seen = {}
    attention = model.blocks[0].attention

    def look(module, args, kwargs, output) -> None:
        x, context = args
        weights = module.weights(x, context)
        _, values = module.keys_and_values(x, context)
        values = values.repeat_interleave(module.num_heads // module.num_kv_heads, dim=1)
        seen["mixed"] = module.output((weights @ values).transpose(1, 2).flatten(2)), output
        seen["sums"] = weights.sum(dim=-1)

    attention.register_forward_hook(look, with_kwargs=True)
    model(ids)
    torch.testing.assert_close(*seen["mixed"], rtol=0, atol=1e-12)
    torch.testing.assert_close(seen["sums"], torch.ones_like(seen["sums"]), rtol=0, atol=1e-12)
