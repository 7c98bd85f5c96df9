"""A cache changes no logit: whatever was read before, in whatever pieces, by rows of whatever length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.model.decoding import pad_left

pytestmark = pytest.mark.usefixtures("compiles_nothing")

V = 29


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def read(
    model: Any,
    ids: Tensor,
    chunks: Sequence[int],
    *,
    cache: Any = None,
    source: dict[str, Tensor] | None = None,
    **columns: Tensor,
) -> Tensor:
    """The logits of ids [B, T], a chunk at a time into the cache; `columns` [B, up to T] are cut like them."""
    cache, logits, at = model.new_cache(len(ids)) if cache is None else cache, [], 0
    for length in chunks:
        part = slice(at, at + length)
        how = {name: column[:, part] for name, column in columns.items() if at < column.shape[1]}
        if at == 0:
            how |= source or {}
        logits.append(model.head(model.hidden(ids[:, part], cache=cache, **how).states))
        at += length
    return torch.cat(logits, dim=1)


def row_of(source: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1] for name, tensor in source.items()}


# Every config ---------------------------------------------------------------------------------------


def test_in_chunks(case) -> None:
    model, ids = case.build(), case.ids(2, 14)
    close(read(model, ids, [6, 1, 1, 6], source=case.source()), case.logits(model, ids))


def test_padded_prompts_in_chunks(case) -> None:
    """Rows of 8, 5 and 1 ids, padded, then six more that all have."""
    model, ids, source = case.build(), case.ids(3, 14), case.source(3)
    prompts = [row[8 - length : 8] for row, length in zip(ids, (8, 5, 1), strict=True)]
    padded, documents = pad_left(prompts)
    together = read(
        model, torch.cat((padded, ids[:, 8:]), dim=1), [6, 2, 1, 5], source=source, documents=documents
    )
    for row, length in enumerate((8, 5, 1)):
        alone = case.logits(model, ids[row : row + 1, 8 - length :], **row_of(source, row))
        close(together[row : row + 1, 8 - length :], alone)


def test_a_narrower_cache_comes_near(few) -> None:
    model, ids = few.build(torch.float32), few.ids()
    cache = model.new_cache(2, dtype=torch.bfloat16)
    cached = read(model, ids, [6, 6], cache=cache, source=few.source())
    assert cache.keys.dtype == torch.bfloat16
    expected = few.logits(model, ids)
    error = (cached - expected).std()
    assert error > 0
    assert error <= 0.02 * expected.std() or few.has_experts  # rounding may send a token to another expert


# Every position scheme, with and without windows ------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_in_any_chunks(placed, batch: int) -> None:
    """Also a prompt longer than the window at once, and each id alone."""
    model, ids, source = placed.build(), placed.ids(batch, 14), placed.source(batch)
    expected = placed.logits(model, ids)
    for chunks in ([14], [9, *[1] * 5], [3, 1, 6, 4]):
        cache = model.new_cache(batch, 14)
        close(read(model, ids, chunks, cache=cache, source=source), expected)
        assert cache.length == 14


@pytest.mark.parametrize("are_documents_given_again", [False, True])
def test_prompts_of_unequal_lengths(placed, are_documents_given_again: bool) -> None:
    model, ids, source = placed.build(), placed.ids(3, 14), placed.source(3)
    lengths = (9, 4, 1)
    prompts = [row[9 - length : 9] for row, length in zip(ids, lengths, strict=True)]
    padded, documents = pad_left(prompts)
    if are_documents_given_again:
        documents = torch.cat((documents, documents.new_zeros(3, 5)), dim=1)
    alone = [
        placed.logits(model, ids[row : row + 1, 9 - length :], **row_of(source, row))
        for row, length in enumerate(lengths)
    ]
    for chunks in ([9, *[1] * 5], [2, 3, 4, 3, 2]):
        together = read(
            model, torch.cat((padded, ids[:, 9:]), dim=1), chunks, source=source, documents=documents
        )
        assert together.isfinite().all()
        for row, length in enumerate(lengths):
            close(together[row : row + 1, 9 - length :], alone[row])


def test_packed_documents_are_as_each_alone(placed) -> None:
    """Numbers need not be in order, and the pieces end within documents, between them, and after several."""
    model, ids = placed.build(), placed.ids(2, 14)
    documents = torch.tensor([[4] * 5 + [0] * 2 + [1] * 7, [0] * 1 + [2] * 8 + [-1] * 5])
    source: dict[str, Tensor] = {}
    if placed.reads_source:
        source = {
            "encoder_ids": placed.ids(2, 9, seed=5),
            "encoder_documents": torch.tensor([[4] * 2 + [0] * 3 + [1] * 4, [2] * 4 + [0] * 3 + [-1] * 2]),
        }
    whole = model.head(model.hidden(ids, documents=documents, **source).states)
    for chunks in ([3, 4, 1, 6], [5, 9], [1] * 14):
        cached = read(model, ids, chunks, source=source, documents=documents)
        close(cached, whole)
    for row, row_documents in enumerate(documents):
        for number in row_documents[row_documents >= 0].unique():
            inside = row_documents == number
            own = {}
            if placed.reads_source:
                own = {
                    "encoder_ids": source["encoder_ids"][row][source["encoder_documents"][row] == number][
                        None
                    ]
                }
            close(whole[row, inside], placed.logits(model, ids[row, inside][None], **own)[0])


def test_prefix_in_the_first_call(placed) -> None:
    if placed.reads_source:
        return
    model, ids, prefix = placed.build(), placed.ids(3, 14), torch.tensor([4, 0, 6])
    whole = model.head(model.hidden(ids, prefix_lengths=prefix).states)
    for chunks in ([6, 8], [9, *[1] * 5], [14]):
        cache = model.new_cache(3)
        first = model.head(model.hidden(ids[:, : chunks[0]], cache=cache, prefix_lengths=prefix).states)
        close(first, whole[:, : chunks[0]])
        if chunks[1:]:
            close(read(model, ids[:, chunks[0] :], chunks[1:], cache=cache), whole[:, chunks[0] :])
    with pytest.raises(ValueError, match="prefix_lengths belong to the first call"):
        model.hidden(ids[:, :1], cache=cache, prefix_lengths=prefix)


def test_places_given_by_hand(placed) -> None:
    """Positions that are given stand; those that follow count on from them."""
    model, ids, source = placed.build(), placed.ids(2, 8), placed.source()
    positions = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7]])
    expected = placed.logits(model, ids, positions=positions)
    for given in (8, 5, 3):
        close(read(model, ids, [3, 2, 1, 2], source=source, positions=positions[:, :given]), expected)


@pytest.mark.parametrize("is_padded", [False, True])
def test_cropped_and_continued(placed, is_padded: bool) -> None:
    model, ids, source = placed.build(), placed.ids(2, 14), placed.source()
    documents = torch.tensor([[0] * 14, [-1] * 4 + [0] * 10]) if is_padded else None
    how = {} if documents is None else {"documents": documents}
    expected = placed.logits(model, ids, **how)
    cache = model.new_cache(2)
    wrong = torch.cat((ids[:, :6], ids[:, :6]), dim=1)
    read(model, wrong, [5, 7], cache=cache, source=source, **{k: d[:, :12] for k, d in how.items()})
    for length in (9, 6):
        cache.crop(length)
    close(read(model, ids[:, 6:], [1, 7], cache=cache)[0], expected[0, 6:])
    cache.crop(6)
    close(read(model, ids[:, 6:], [8], cache=cache), expected[:, 6:])


@pytest.mark.parametrize("rows", [[2, 0, 0], [1], [0, 1, 2, 2, 1]], ids=str)
def test_reordered_rows_continue_others(placed, rows: list[int]) -> None:
    """As in beam search: the encoded source, padding and places go along."""
    model, ids = placed.build(), placed.ids(3, 6)
    documents = torch.tensor([[0] * 6, [-1] * 2 + [0] * 4, [-1] * 5 + [0]])
    source = placed.source(3)
    if placed.reads_source:
        source["encoder_documents"] = torch.tensor([[0] * 7, [-1] * 3 + [0] * 4, [0] * 2 + [-1] * 5])
    cache = model.new_cache(3)
    read(model, ids, [4, 2], cache=cache, source=source, documents=documents)
    cache.reorder(rows)
    new = placed.ids(len(rows), 4, seed=9)
    cached = read(model, new, [1, 3], cache=cache)
    index = torch.tensor(rows)
    whole = placed.logits(
        model,
        torch.cat((ids[index], new), dim=1),
        documents=torch.cat((documents[index], torch.zeros_like(new)), dim=1),
        **{name: tensor[index] for name, tensor in source.items()},
    )
    close(cached, whole[:, 6:])


def test_padded_sources_are_as_each_alone(placed) -> None:
    if not placed.reads_source:
        return
    model, ids, padding = placed.build(), placed.ids(3, 10), 17
    texts = [placed.ids(1, length, seed=length)[0] for length in (6, 3, 1)]
    left, left_documents = pad_left(texts)
    right, right_documents = torch.full((3, 6), padding), torch.full((3, 6), -1)
    for row, text in enumerate(texts):
        right[row, : len(text)], right_documents[row, : len(text)] = text, 0
    for encoder_ids, encoder_documents in ((left, left_documents), (right, right_documents)):
        source = {"encoder_ids": encoder_ids, "encoder_documents": encoder_documents}
        cached = read(model, ids, [4, 1, 5], source=source)
        close(placed.logits(model, ids, **source), cached)
        for row, text in enumerate(texts):
            close(cached[row : row + 1], placed.logits(model, ids[row : row + 1], encoder_ids=text[None]))


def test_the_source_is_encoded_once(placed, monkeypatch: pytest.MonkeyPatch) -> None:
    if not placed.reads_source:
        return
    model, ids, calls = placed.build(), placed.ids(2, 10), []
    model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    for block in model.decoder.blocks:
        block.cross_attention.key.register_forward_hook(lambda *_: calls.append("key"))
    cache = model.new_cache(2)
    first = read(model, ids, [4, 1, 1, 4], cache=cache, source=placed.source())
    assert sorted(calls) == ["encoder", "key", "key"]
    calls.clear()
    cache.crop(0)
    close(read(model, ids, [5, 5], cache=cache), first)
    assert not calls


def test_flex_attention_as_users_run_it(changes) -> None:
    """Traced for every shape, within the limit that torch sets to retracing."""
    case = changes.case("decoder", {"attention": {"kernel": "flex", "window": 3, "softcap": 2.0}})
    model, ids = case.build(), case.ids(2, 16)
    with torch.compiler.set_stance("default"):
        close(read(model, ids, [4, *[1] * 12]), case.logits(model, ids))
