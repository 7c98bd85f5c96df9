"""One interface generates for both families: greedy text against the stated rule, computed without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.model.decoding import decode, pad_left, picker

pytestmark = pytest.mark.usefixtures("compiles_nothing")

CONTEXT = 16


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def model(windowed) -> Any:
    return wide(windowed.with_changes(tie_embeddings=False).build())


def wide(model: Any) -> Any:
    """With larger logits, so that greedy text is not one id repeated."""
    for parameter in model.parameters():
        parameter.mul_(2)
    return model


def prompts_of(case, lengths: tuple[int, ...]) -> list[Tensor]:
    return [case.ids(1, length, seed=20 + length)[0] for length in lengths]


def newest(ids: Tensor) -> Tensor:
    """The stated rule: what does not fit into the context is cut to its newest half."""
    return ids if ids.shape[1] <= CONTEXT else ids[:, -(CONTEXT // 2) :]


def greedy(model: Any, prompt: Tensor, documents: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """The new ids [B, count], and the logits that each was chosen by."""
    how: dict[str, Tensor] = {}
    ids = read = prompt
    if not model.continues_prompt:
        how["encoder_ids"] = newest(prompt)
        if documents is not None:
            how["encoder_documents"] = newest(documents)
        ids = read = torch.full_like(prompt[:, :1], model.start_id)
        documents = None
    new, chosen_by = [], []
    for _ in range(count):
        read = newest(read)
        if documents is not None:
            how["documents"] = torch.cat(
                (documents, documents.new_zeros(len(ids), ids.shape[1] - documents.shape[1])), dim=1
            )[:, -read.shape[1] :]
        logits = model.head(model.hidden(read, **how).states)[:, -1]
        new.append(logits.argmax(dim=-1))
        chosen_by.append(logits)
        read, ids = (torch.cat((text, new[-1][:, None]), dim=1) for text in (read, ids))
    return torch.stack(new, dim=1), torch.stack(chosen_by, dim=1)


def decoded(model: Any, prompt: Tensor, documents: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    chosen_by = []

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        chosen_by.append(logits)
        return logits.argmax(dim=-1)

    new = list(decode(model, prompt, count, pick, documents=documents))
    return torch.stack(new, dim=1), torch.stack(chosen_by, dim=1)


@pytest.mark.parametrize("length", [3, CONTEXT, 40])
def test_text_longer_than_the_context_follows_the_stated_rule(windowed, model, length: int) -> None:
    prompt = windowed.ids(2, length)
    expected, expected_logits = greedy(model, prompt, None, 30)
    new, logits = decoded(model, prompt, None, 30)
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-11)
    assert torch.equal(new, expected)
    assert new.unique().numel() > 3
    generated = model.generate(prompt, 30)
    assert torch.equal(generated, torch.cat((prompt, new), dim=1) if model.continues_prompt else new)


def test_so_do_padded_rows(windowed, model) -> None:
    for lengths in ((10, 7, 1), (30, 12, 5)):
        prompt, documents = pad_left(prompts_of(windowed, lengths))
        expected, expected_logits = greedy(model, prompt, documents, 24)
        new, logits = decoded(model, prompt, documents, 24)
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-11)
        assert torch.equal(new, expected)


def test_prompts_of_unequal_lengths_are_continued_as_each_alone(windowed, model) -> None:
    prompts = prompts_of(windowed, (8, 5, 1))
    together = model.generate(prompts, 8)
    for prompt, ids in zip(prompts, together, strict=True):
        assert torch.equal(ids, model.generate(prompt, 8))
        assert torch.equal(ids[: len(prompt)], prompt) or not model.continues_prompt
        assert len(ids) == 8 + len(prompt) * model.continues_prompt


def test_a_stopped_row_waits_for_the_others(windowed, model) -> None:
    prompts = prompts_of(windowed, (8, 5, 1))
    free = [ids[-8:] for ids in model.generate(prompts, 8)]
    stop_id = int(free[0][2])
    ends = [[*ids.tolist(), stop_id].index(stop_id) + 1 for ids in free]
    for ids, unstopped, end in zip(model.generate(prompts, 8, stop_id=stop_id), free, ends, strict=True):
        new = ids[-min(8, max(ends)) :]
        assert torch.equal(new[:end], unstopped[:end])
        assert (new[end:] == stop_id).all()


def test_every_change_generates(few) -> None:
    model, prompts = wide(few.build()), prompts_of(few, (6, 3))
    together = model.generate(prompts, 6)
    for prompt, ids in zip(prompts, together, strict=True):
        new, _ = greedy(model, prompt[None], None, 6)
        assert torch.equal(ids[-6:], new[0])


def test_a_target_begins_after_the_start_id(changes) -> None:
    case = changes.case("encoder_decoder", {"start_id": 5})
    model, seen = case.build(), []

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        seen.append(ids)
        return logits.argmax(dim=-1)

    new = torch.stack(list(decode(model, case.ids(2, 7), 3, pick)), dim=1)
    assert [ids.tolist() for ids in seen] == [[[5, *row[:step]] for row in new.tolist()] for step in range(3)]
    assert model.generate(case.ids(2, 7), 0).shape == (2, 0)
    assert model.generate(case.ids(1, 7)[0], 3).shape == (3,)


def test_dropout_is_off_meanwhile_and_the_mode_as_before(changes) -> None:
    for family in ("decoder", "encoder_decoder"):
        case = changes.case(family, {"dropout": 0.5})
        model, prompt = case.build(), case.ids(2, 5)
        expected = model.generate(prompt, 6)
        assert torch.equal(model.train().generate(prompt, 6), expected)
        assert model.training


def test_a_narrow_cache_serves_both_families(changes) -> None:
    for family in ("decoder", "encoder_decoder"):
        case = changes.case(family, {})
        model, pick = case.build(torch.float32), picker(0.0, None, torch.Generator())
        new = list(decode(model, case.ids(2, 5), 4, pick, dtype=torch.bfloat16))
        assert len(new) == 4
        assert model.start(case.ids(2, 5), 4, dtype=torch.bfloat16).cache.keys.dtype == torch.bfloat16
