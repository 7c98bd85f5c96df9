"""Beam search finds transformers' texts, with its scores, on tiny random weights of both families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from pellucid.config import from_tree
from pellucid.generate.beam import Beam, BeamConfig, Step, beam_search
from pellucid.generate.written import Written
from pellucid.interop.maps import gpt2, llama, t5
from pellucid.model import DecoderConfig, EncoderDecoderConfig
from pellucid.model.decoding import pad_left

V = 23
NEW = 14
SIZES = {"vocab_size": V, "d_model": 32, "num_heads": 4, "max_seq_len": 48}
DECODER = SIZES | {"num_layers": 2}
FAMILIES = {
    "llama": DECODER
    | {
        "num_kv_heads": 2,
        "position": {"kind": "rope"},
        "feed_forward": {"kind": "swiglu", "d_ff": 40},
        "tie_embeddings": False,
    },
    "gpt2": DECODER
    | {
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "d_ff": 40},
        "bias": True,
    },
    "t5": SIZES
    | {
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "norm": {"kind": "rmsnorm"},
        "position": {"kind": "t5", "num_buckets": 8, "max_distance": 20},
        "feed_forward": {"kind": "geglu", "d_ff": 40},
        "attention": {"scale": 1.0},
        "tie_embeddings": False,
        "start_id": 0,
    },
}
PADDING = 0
END_IDS = {"llama": 14, "gpt2": 17, "t5": 19}
"""Ids that these weights do choose, now early and now never."""
LENGTHS = (7, 1, 4, 7)


PROMPTS = [
    torch.randint(1, V, (length,), generator=torch.Generator().manual_seed(seed))
    for seed, length in enumerate(LENGTHS)
]


@dataclass(frozen=True)
class Pair:
    """The same weights in transformers' code and in ours."""

    ours: Any
    theirs: Any
    end_id: int
    widen: Callable[[], Any]

    @property
    def width(self) -> int:
        """Of what is written before the first new id."""
        return max(LENGTHS) if self.ours.continues_prompt else 1

    def ours_finds(
        self, beams: BeamConfig, end_id: int | None, processors: Sequence[LogitsProcessor] = ()
    ) -> list[list[Beam]]:
        prompts, documents = pad_left(PROMPTS)
        steps = [as_step(processor) for processor in processors]
        return beam_search(self.ours, prompts, NEW, beams, documents=documents, end_id=end_id, steps=steps)

    def theirs_finds(
        self, beams: BeamConfig, end_id: int | None, processors: Sequence[LogitsProcessor] = ()
    ) -> Any:
        prompts, documents = pad_left(PROMPTS)
        with self.widen():
            return self.theirs.generate(
                prompts,
                attention_mask=documents + 1,
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=end_id,
                pad_token_id=PADDING,
                num_beams=beams.num_beams,
                num_return_sequences=beams.num_results,
                length_penalty=beams.length_penalty,
                early_stopping=beams.early_stopping,
                logits_processor=LogitsProcessorList(processors),
                return_dict_in_generate=True,
                output_scores=True,
            )

    def compare(
        self,
        beams: BeamConfig,
        end_id: int | None,
        processors: Sequence[LogitsProcessor] = (),
        tolerance: float = 1e-10,
    ) -> list[Tensor]:
        """Equal ids, in equal order, with equal scores. Gives the ids back."""
        found = self.ours_finds(beams, end_id, processors)
        expected = self.theirs_finds(beams, end_id, processors)
        assert [len(results) for results in found] == [beams.num_results] * len(PROMPTS)
        results = [result for results in found for result in results]
        texts = [result.ids.tolist() for result in results]
        assert texts == [cut(row, end_id) for row in expected.sequences[:, self.width :].tolist()]
        scores = torch.tensor([result.score for result in results], dtype=torch.float64)
        torch.testing.assert_close(scores, expected.sequences_scores.double(), rtol=0, atol=tolerance)
        return [result.ids for result in results]


def as_step(processor: LogitsProcessor) -> Step:
    return lambda scores, written: processor(written.ids, scores)


def cut(ids: list[int], end_id: int | None) -> list[int]:
    """Without the padding after the end of text."""
    return ids[: ids.index(end_id) + 1] if end_id in ids else ids


MAPS = {"llama": llama, "gpt2": gpt2, "t5": t5}


def build(family: str, same_weights: Callable[..., Any], widen: Callable[[], Any]) -> Pair:
    config = from_tree(EncoderDecoderConfig if family == "t5" else DecoderConfig, FAMILIES[family])
    return Pair(*same_weights(MAPS[family], config), END_IDS[family], widen)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, same_weights, float64_throughout) -> Pair:
    return build(request.param, same_weights, float64_throughout)


EARLY_STOPPING = [False, True, "never"]
LENGTH_PENALTIES = [-1.0, 0.0, 0.6, 1.0, 3.0]


@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
@pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
def test_texts_that_end_are_theirs(pair: Pair, length_penalty: float, early_stopping: Any) -> None:
    for num_beams, num_results in ((2, 2), (4, 3), (9, 1)):
        beams = BeamConfig(
            num_beams=num_beams,
            num_results=num_results,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        )
        pair.compare(beams, pair.end_id)


def test_the_settings_above_matter(pair: Pair) -> None:
    """Texts of many lengths, some cut and some ended; penalties and ways to stop find other texts."""

    def found(**settings: Any) -> list[list[int]]:
        rows = pair.ours_finds(BeamConfig(**settings), pair.end_id)
        return [result.ids.tolist() for row in rows for result in row]

    texts = found(num_beams=4, num_results=3)
    assert len({len(text) for text in texts}) > 3
    assert {text[-1] == pair.end_id for text in texts} == {True, False}
    by_penalty = [found(num_beams=4, num_results=3, length_penalty=penalty) for penalty in LENGTH_PENALTIES]
    assert len(set(map(str, by_penalty))) >= 4
    by_stop = [found(num_beams=2, num_results=2, early_stopping=stop) for stop in EARLY_STOPPING]
    assert len(set(map(str, by_stop))) == 3


@pytest.mark.parametrize("num_beams", [2, 4, 11])
def test_texts_that_never_end_are_theirs(pair: Pair, num_beams: int) -> None:
    ids = pair.compare(BeamConfig(num_beams=num_beams, num_results=num_beams), None)
    assert {len(text) for text in ids} == {NEW}


@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
@pytest.mark.parametrize("name", ["no repeated pair", "repetition", "at least 6 new ids", "all of them"])
def test_steps_change_log_probabilities_as_theirs(pair: Pair, name: str, early_stopping: Any) -> None:
    processors = {
        "no repeated pair": NoRepeatNGramLogitsProcessor(2),
        "repetition": RepetitionPenaltyLogitsProcessor(1.7),
        "at least 6 new ids": MinNewTokensLengthLogitsProcessor(pair.width, 6, pair.end_id),
    }
    chosen = list(processors.values()) if name == "all of them" else [processors[name]]
    beams = BeamConfig(num_beams=4, num_results=4, early_stopping=early_stopping)
    ids = pair.compare(beams, pair.end_id, chosen)
    plain = [result.ids for row in pair.ours_finds(beams, pair.end_id) for result in row]
    assert any(not torch.equal(one, other) for one, other in zip(ids, plain, strict=True))


def test_what_a_step_is_told(pair: Pair) -> None:
    """All ids that they hand to their processors, and besides how many are text, and how many new."""
    seen: list[Written] = []
    theirs: list[Tensor] = []

    class Recording(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            theirs.append(input_ids.clone())
            return scores

    def step(scores: Tensor, written: Written) -> Tensor:
        seen.append(replace(written, ids=written.ids.clone()))
        return scores

    prompts, documents = pad_left(PROMPTS)
    beam_search(pair.ours, prompts, NEW, BeamConfig(num_beams=3), documents=documents, steps=[step])
    pair.theirs_finds(BeamConfig(num_beams=3), None, [Recording()])
    assert len(seen) == len(theirs) == NEW
    for new, (written, ids) in enumerate(zip(seen, theirs, strict=True)):
        expected = ids[::3] if new == 0 else ids  # the prompt is read once for all of its beams
        assert torch.equal(written.ids, expected)
        assert written.num_new.tolist() == [new] * len(expected)
        if pair.ours.continues_prompt:
            beams = 1 if new == 0 else 3
            assert written.lengths.tolist() == [length + new for length in LENGTHS for _ in range(beams)]
        else:
            assert written.lengths is None


def test_their_code_as_published_agrees_in_float32(same_weights, float64_throughout) -> None:
    for family in FAMILIES:
        pair = build(family, same_weights, float64_throughout)
        pair = replace(pair, ours=pair.ours.float(), theirs=pair.theirs.float(), widen=nullcontext)
        pair.compare(BeamConfig(num_beams=4, num_results=4), pair.end_id, tolerance=1e-4)
