"""Beam search: the likeliest texts that a search of limited width finds, several for each prompt.

A beam is the beginning of a text. Every step extends each of a prompt's beams by every id and keeps the
`num_beams` best extensions; those that end leave the search as results. Results and scores equal those of
`transformers`. One beam is greedy choice; as many beams as there are beginnings is exhaustive search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from pellucid.config import Config
from pellucid.errors import ConfigError, GenerationError
from pellucid.generate.written import Step, Written
from pellucid.model.decoding import Decoding
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel


class BeamConfig(Config):
    """How wide to search, how many texts to give back, and what makes one text better than another."""

    num_beams: int = Field(default=4, ge=1)
    """How many beginnings of a text are followed at once. 1 is greedy choice; time and memory grow with it."""
    num_results: int = Field(default=1, ge=1)
    """How many texts come back for each prompt, best first. At most num_beams."""
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    """A text's score is its log-probability / new ids ** length_penalty: above 0 favours long texts, below 0 short."""
    early_stopping: Literal[False, True, "never"] = False
    """When a prompt's search ends, once num_beams texts have. true: at once. false: when the best beam, scored as
    if it ended now, is no better than the worst text found. "never": when no beam can become better, at any length."""

    @model_validator(mode="after")
    def _has_room_for_the_results(self) -> Self:
        if self.num_results > self.num_beams:
            raise ValueError(
                f"{self.num_results} results cannot come of {self.num_beams} beams; "
                "num_results must be at most num_beams"
            )
        return self


@dataclass(frozen=True, eq=False)
class Beam:
    """A text that was found."""

    ids: Int[Tensor, " T_new"]
    """The new ids alone, the end of text included."""
    score: float
    """The sum of their log-probabilities (as the steps left them) / how many they are ** length_penalty."""


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompt: Int[Tensor, "B T"],
    max_new_tokens: int,
    beams: BeamConfig | None = None,
    *,
    documents: Int[Tensor, "B T"] | None = None,
    end_id: int | None = None,
    steps: Sequence[Step] = (),
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
) -> list[list[Beam]]:
    """The `num_results` best texts of each prompt, best first; fewer where fewer texts are possible.

    A text ends with `end_id`, or after max_new_tokens ids. Of the 2 · num_beams best extensions of a prompt's beams,
    those that end are results if they are among the first num_beams, and the best that do not are the next beams
    (there are enough: only one extension of a beam ends). The num_beams best results are kept.

    `steps` change log-probabilities, not logits, and what they leave is summed as it is. `documents` is -1 where the
    prompt is padding; a prompt's texts do not depend on the others of the batch. The prompt is read once for all its
    beams. Text beyond the context goes on as in `Decoding`: each beam's newest half is read again. dtype, chunk: as
    for `Decoding`.

    Scores are float32, or float64 where the model is. Raises ConfigError where the steps leave a prompt no text, and
    GenerationError where a log-probability is not a number.  Source: Lowerre 1976 (the HARPY system); Wu et al. 2016,
    arXiv:1609.08144, section 7, whose length penalty is another; `transformers` for what happens at the end.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    beams = beams or BeamConfig()
    searches = [_Search(beams, max_new_tokens, end_id) for _ in range(prompt.shape[0])]
    with evaluation_mode(model):
        rows = Decoding(model, prompt, max_new_tokens, documents=documents, dtype=dtype, chunk=chunk)
        padded = documents if model.continues_prompt else None
        lengths = None if padded is None else (padded >= 0).sum(dim=1)
        running, scores = searches, torch.zeros(prompt.shape[0], 1, device=prompt.device)
        while running:
            log_probs = _log_probs(rows, lengths, steps)
            totals = scores[:, :, None] + log_probs.view(*scores.shape, -1)
            new_ids = rows.ids[:, rows.ids.shape[1] - rows.num_new :]
            for search, extensions in zip(running, _best(totals, 2 * beams.num_beams), strict=True):
                search.advance(extensions, new_ids)
            running = [search for search in running if not search.is_over]
            if running:
                going = [extension for search in running for extension in search.beams]
                parents = torch.tensor([extension.row for extension in going], device=prompt.device)
                rows.keep(parents)
                rows.append(torch.tensor([extension.id for extension in going], device=prompt.device))
                lengths = None if lengths is None else lengths[parents]
                kept = [extension.score for extension in going]
                scores = totals.new_tensor(kept).view(len(running), beams.num_beams)
    return [search.results[: beams.num_results] for search in searches]


class _Extension(NamedTuple):
    """A beam and one more id: the row that it continues, and the sum of its log-probabilities."""

    score: float
    row: int
    id: int


class _Search:
    """What one prompt's search has found, and where it goes on.

    results: at most num_beams texts that have ended, best first. beams: exactly num_beams extensions to go on with,
    best first; where fewer are possible, the rest have the score -inf and nothing comes of them.
    """

    def __init__(self, config: BeamConfig, max_new_tokens: int, end_id: int | None) -> None:
        self.results: list[Beam] = []
        self.beams: list[_Extension] = []
        self.is_over = False
        self._config, self._max_new_tokens, self._end_id = config, max_new_tokens, end_id

    def advance(self, extensions: Sequence[_Extension], new_ids: Int[Tensor, "B T_new"]) -> None:
        """Take the best extensions, best first, of beams that have written `new_ids`."""
        length, width = new_ids.shape[1] + 1, self._config.num_beams
        if math.isnan(extensions[0].score):
            raise GenerationError(
                "a log-probability is not a number: the model's logits, or what a step made of them"
            )
        possible = [extension for extension in extensions if extension.score > -math.inf]
        is_last = length == self._max_new_tokens
        for extension in possible[:width]:
            if is_last or extension.id == self._end_id:
                self._finish(extension, new_ids)
        going = [] if is_last else [one for one in possible if one.id != self._end_id][:width]
        if not going and not self.results:
            raise ConfigError(
                f"the steps leave no id to choose after {length - 1} new ids; ban less, or let the text end sooner"
            )
        self.is_over = not going or self._cannot_improve(going[0].score, length)
        self.beams = going + [going[0]._replace(score=-math.inf)] * (width - len(going)) if going else []

    def _finish(self, extension: _Extension, new_ids: Int[Tensor, "B T_new"]) -> None:
        """Keep the text if it is among the num_beams best."""
        score = self._scored(extension.score, new_ids.shape[1] + 1)
        if len(self.results) == self._config.num_beams and score <= self.results[-1].score:
            return
        ids = torch.cat((new_ids[extension.row], new_ids.new_tensor([extension.id])))
        self.results.append(Beam(ids, score))
        self.results.sort(key=lambda beam: -beam.score)
        del self.results[self._config.num_beams :]

    def _cannot_improve(self, best: float, length: int) -> bool:
        """Whether the search may end; `best` is the sum of log-probabilities of the best beam, of `length` ids."""
        if len(self.results) < self._config.num_beams:
            return False
        if self._config.early_stopping == "never" and self._config.length_penalty > 0:
            length = self._max_new_tokens  # where a sum that does not fall further would be worth most
        is_early = self._config.early_stopping is True
        return is_early or self._scored(best, length) <= self.results[-1].score

    def _scored(self, log_prob: float, length: int) -> float:
        return log_prob / length**self._config.length_penalty


def _log_probs(
    rows: Decoding, lengths: Int[Tensor, " B"] | None, steps: Sequence[Step]
) -> Float[Tensor, "B V"]:
    """Of the next id of every row, after the steps. lengths: of the prompts; None: nothing is padding."""
    logits = rows.next_logits()
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    num_new = torch.full((len(scores),), rows.num_new, device=scores.device)
    written = Written(rows.ids, None if lengths is None else lengths + rows.num_new, num_new)
    for step in steps:
        scores = step(scores, written)
    return scores


def _best(totals: Float[Tensor, "P B V"], count: int) -> list[list[_Extension]]:
    """The `count` best extensions of the B rows of each of P prompts, best first; all where there are fewer."""
    prompts, rows, vocab_size = totals.shape
    best = totals.view(prompts, -1).topk(min(count, rows * vocab_size))
    first = torch.arange(prompts, device=totals.device)[:, None] * rows
    table = (best.values, best.indices // vocab_size + first, best.indices % vocab_size)
    columns = zip(*(column.tolist() for column in table), strict=True)
    return [[_Extension(*one) for one in zip(*prompt, strict=True)] for prompt in columns]
