"""What an encoder-decoder promises besides what both families do: how its two halves meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.usefixtures("compiles_nothing")

V = 29


@pytest.fixture
def plain(changes):
    return changes.case("encoder_decoder", {})


def changed_at(ids: Tensor, at: int) -> Tensor:
    other = ids.clone()
    other[:, at] = (other[:, at] + 1) % V
    return other


@torch.no_grad()
def test_every_target_id_sees_the_whole_source(case) -> None:
    if not case.reads_source:
        return
    model, ids, source = case.build(), case.ids(), case.source()["encoder_ids"]
    before = case.logits(model, ids)
    for at in (0, 3, 6):
        after = case.logits(model, ids, encoder_ids=changed_at(source, at))
        assert ((after - before).abs().amax(dim=-1) > 1e-9).all()


@torch.no_grad()
def test_the_source_is_read_in_both_directions(plain) -> None:
    model, source = plain.build(), plain.source()["encoder_ids"]
    before = model.encode(source).states
    for at in (0, 3, 6):
        after = model.encode(changed_at(source, at)).states
        assert ((after - before).abs().amax(dim=-1) > 1e-6).all()


@torch.no_grad()
def test_the_window_of_an_encoder_reaches_both_ways(plain) -> None:
    case = plain.with_changes(attention={"window": 2})
    model, source = case.build(), case.source()["encoder_ids"]
    before, after = model.encode(source).states, model.encode(changed_at(source, 3)).states
    moved = (after - before).abs().amax(dim=-1) > 0
    assert (
        moved.tolist() == [[False, True, True, True, True, True, False]] * 2
    )  # one place a layer and direction


@torch.no_grad()
def test_padding_in_the_source_changes_no_bit(case) -> None:
    if not case.reads_source or case.has_experts:
        return
    model, ids, source = case.build(), case.ids(), case.source()["encoder_ids"]
    documents = torch.tensor([[0] * 4 + [-1] * 3, [-1] * 3 + [0] * 4])
    other = torch.where(documents == -1, (source + 1) % V, source)
    before, after = (
        case.logits(model, ids, encoder_ids=x, encoder_documents=documents) for x in (source, other)
    )
    assert torch.equal(after, before)


def with_tables(case) -> Any:
    return case.with_changes(share_embeddings=False).build()


@torch.no_grad()
def test_separate_tables_serve_a_half_each_and_a_tied_head_is_the_targets(plain) -> None:
    model, ids, source = with_tables(plain), plain.ids(), plain.source()["encoder_ids"]
    assert model.head_parameters().weight is model.target_embedding.table
    encoded, states = model.encode(source).states, model.hidden(ids, encoder_ids=source).states
    model.target_embedding.table.mul_(2)
    assert torch.equal(model.encode(source).states, encoded)
    assert not torch.equal(model.hidden(ids, encoder_ids=source).states, states)


@torch.no_grad()
def test_equal_tables_are_as_a_shared_one(plain) -> None:
    shared, separate = plain.build(), with_tables(plain)
    weights = shared.state_dict()
    separate.load_state_dict(weights | {"target_embedding.table": weights["embedding.table"].clone()})
    assert torch.equal(plain.logits(separate, plain.ids()), plain.logits(shared, plain.ids()))


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "reference", "flex"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_document_without_a_source_sees_nothing_and_stays_finite(plain, kernel: str, dtype) -> None:
    """Its cross-attention adds the output bias alone; nothing of it is NaN, gradients included."""
    case = plain.with_changes(attention={"kernel": kernel}, bias=True)
    model, ids, source = case.build(dtype), case.ids(), case.source()["encoder_ids"]
    how = {
        "documents": torch.tensor([[0] * 6 + [1] * 6, [-1] * 3 + [0] * 9]),
        "encoder_documents": torch.tensor([[0] * 7, [0] * 5 + [2] * 2]),
    }
    added: list[Tensor] = []
    attention = model.decoder.blocks[0].cross_attention
    attention.register_forward_hook(lambda module, args, output: added.append(output.detach()))
    if case.can_train:
        loss, gradients = case.loss_and_gradients(model, **how)
        assert loss.isfinite()
        for name, gradient in gradients.items():
            assert gradient is not None
            assert gradient.isfinite().all(), name
    else:
        with torch.no_grad():
            assert case.logits(model, ids, encoder_ids=source, **how).isfinite().all()
    bias = attention.output.bias.detach()
    assert torch.equal(added[0][0, 6:], bias.expand(6, -1))
    assert torch.equal(added[0][1, :3], bias.expand(3, -1))
    assert (added[0][0, :6] != bias).any(dim=-1).all()


def test_what_cannot_be_read_is_refused(plain) -> None:
    model, ids = plain.build(), plain.ids()
    with pytest.raises(ValueError, match="a target needs its source: give encoder_ids, or a cache"):
        model.hidden(ids)
    with pytest.raises(ValueError, match="a target needs its source: give encoder_ids, or a cache"):
        model.hidden(ids, cache=model.new_cache(2))
    with pytest.raises(ValueError, match=r"17 positions of the source are more than max_seq_len \(16\)"):
        model(plain.ids(1, 17), plain.ids(1, 3))
    with pytest.raises(ValueError, match=r"17 positions .* are more than max_seq_len \(16\)"):
        model(plain.ids(1, 3), plain.ids(1, 17))
