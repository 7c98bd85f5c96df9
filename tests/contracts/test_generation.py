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


def greedy(model: Any, prompt: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The new ids [B, count] of prompts of one length, and the logits that each was chosen by."""
    how: dict[str, Tensor] = {}
    read = prompt
    if not model.continues_prompt:
        how["encoder_ids"] = newest(prompt)
        read = torch.full_like(prompt[:, :1], model.start_id)
    new, chosen_by = [], []
    for step in range(count):
        if step == 0 or read.shape[1] > CONTEXT:
            read = newest(read)
            if getattr(model.config, "prompt_mask", None) == "prefix":
                how["prefix_lengths"] = torch.full_like(read[:, 0], read.shape[1])
        logits = model.head(model.hidden(read, **how).states)[:, -1]
        new.append(logits.argmax(dim=-1))
        chosen_by.append(logits)
        read = torch.cat((read, new[-1][:, None]), dim=1)
    return torch.stack(new, dim=1), torch.stack(chosen_by, dim=1)


def decoded(model: Any, prompt: Tensor, documents: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    chosen_by = []

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        chosen_by.append(logits)
        return logits.argmax(dim=-1)

    new = list(decode(model, prompt, count, pick, documents=documents))
    return torch.stack(new, dim=1), torch.stack(chosen_by, dim=1)


@pytest.mark.parametrize("length", [CONTEXT, 40])
def test_text_longer_than_the_context_follows_the_stated_rule(windowed, model, length: int) -> None:
    prompt = windowed.ids(2, length)
    expected, expected_logits = greedy(model, prompt, 20)
    new, logits = decoded(model, prompt, None, 20)
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-11)
    assert torch.equal(new, expected)
    assert new.unique().numel() > 3
    generated = model.generate(prompt, 20)
    assert torch.equal(generated, torch.cat((prompt, new), dim=1) if model.continues_prompt else new)


@pytest.mark.parametrize("lengths", [(10, 7, 1), (30, 12, 5)], ids=str)
def test_so_does_each_of_several_rows_by_itself(windowed, model, lengths: tuple[int, ...]) -> None:
    """A row is cut when it has filled the context itself, not when a longer one has."""
    prompts = prompts_of(windowed, lengths)
    new, logits = decoded(model, *pad_left(prompts), 20)
    for row, prompt in enumerate(prompts):
        expected, expected_logits = greedy(model, prompt[None], 20)
        torch.testing.assert_close(logits[row : row + 1], expected_logits, rtol=0, atol=1e-11)
        assert torch.equal(new[row], expected[0])
    for ids, prompt, ours in zip(model.generate(prompts, 20), prompts, new, strict=True):
        assert torch.equal(ids, torch.cat((prompt, ours)) if model.continues_prompt else ours)


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
        new, _ = greedy(model, prompt[None], 6)
        assert torch.equal(ids[-6:], new[0])


@pytest.mark.parametrize("lengths", [(9, 9), (9, 4, 1)], ids=str)
def test_a_prefix_is_read_in_both_directions(changes, lengths: tuple[int, ...]) -> None:
    """Also again where the context is full."""
    causal, prefix = (changes.case("decoder", {"prompt_mask": mask}) for mask in ("causal", "prefix"))
    prompts = prompts_of(prefix, lengths)
    _, ours = decoded(wide(prefix.build()), *pad_left(prompts), 20)
    _, others = decoded(wide(causal.build()), *pad_left(prompts), 20)
    assert not torch.allclose(ours[0], others[0])
    for row, prompt in enumerate(prompts):
        _, expected = greedy(wide(prefix.build()), prompt[None], 20)
        torch.testing.assert_close(ours[row : row + 1], expected, rtol=0, atol=1e-11)


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
