"""Prompt text → generated text: whole, in pieces as it comes, or many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch

from pellucid.errors import ConfigError, TokenizerError
from pellucid.generate.beam import BeamConfig, beam_search
from pellucid.generate.engine import Options, StopReason, Writing
from pellucid.generate.pieces import Pieces
from pellucid.generate.sampling import LogProbability, SamplingConfig
from pellucid.model import decoding
from pellucid.model.interface import LanguageModel
from pellucid.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Generation:
    """A finished continuation of a prompt: `prompt + text` is the whole text. From an encoder-decoder, an answer."""

    prompt: str
    text: str
    """The continuation alone, without the end-of-text token and without the stop text."""
    ids: tuple[int, ...]
    """The new ids, what ended the text included."""
    prompt_tokens: int
    """Ids of the prompt, or 1 for the id that an empty prompt starts from."""
    prompt_tokens_read: int
    """How many of them, the newest, the model has read: fewer where the prompt is longer than the context."""
    stop_reason: StopReason
    tokens_per_second: float
    """New ids of the whole batch by the seconds in the model, reading the prompts included, the caller's own not."""
    result: int = 0
    """Its number among those of its prompt."""
    score: float | None = None
    """Of a text found by beams: the sum of its log-probabilities, by its length as `length_penalty` says."""
    log_probabilities: tuple[LogProbability, ...] | None = None
    """Of each new id, where they were asked for."""
    drafted: int = 0
    accepted: int = 0
    """How many ids were drafted for it, and how many of these the model has accepted."""

    @property
    def new_tokens(self) -> int:
        """Ids chosen, what ended the text included."""
        return len(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; what was not asked for is left out."""
        values = {**asdict(self), "new_tokens": self.new_tokens}
        return {name: value for name, value in values.items() if value is not None}


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    on_text: Callable[[str], object] | None = None,
    before: Sequence[int] = (),
    options: Options | None = None,
) -> Generation:
    """Continue the prompt as `stream_text` does; `on_text` is handed each piece as it comes, and may raise."""
    with closing(stream_text(model, tokenizer, prompt, sampling, before=before, options=options)) as pieces:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            if on_text is not None:
                on_text(piece)


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    before: Sequence[int] = (),
    options: Options | None = None,
) -> Generator[str, None, Generation]:
    """Yield the continuation (from an encoder-decoder: the answer) in pieces of whole characters.

    The generator's return value is the Generation.

    Text ends at the tokenizer's end-of-text id, before one of the texts `sampling.stop`, or after
    `sampling.max_new_tokens` ids; the pieces joined are `Generation.text`. Special tokens in the prompt are plain
    text, but in an encoder's source, which may hold sentinels (`<extra_id_0>`). An empty prompt starts from the
    end-of-text id, after which a model has learned that a text begins, or from a newline where the tokenizer
    has none. Of a prompt longer than the context the newest part is read (see `Decoding`), and the
    Generation says how much. `before` are ids that stand before the prompt, such as what was said so far (see
    `Transcript`), which the prompt may then continue as it is when it is empty. Dropout is off until the generator
    ends.

    `sampling` is plain drawing where it is left out. Raises TokenizerError when the tokenizer has ids that the model
    has not, ConfigError as `Writing` does and where an encoder-decoder, whose prompt is its source, is given `before`.
    """
    batch = _Batch(model, tokenizer, [prompt], sampling or SamplingConfig(), 1, options, before)
    for _, piece in batch.pieces():
        yield piece
    return batch.results()[0][0]


def generate_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig | None = None,
    *,
    num_results: int = 1,
    beams: BeamConfig | None = None,
    batch_size: int = 8,
    before: Sequence[int] = (),
    options: Options | None = None,
) -> Iterator[list[Generation]]:
    """Yield the results of each prompt, in the order of the prompts, of which `batch_size` are written together.

    A text is that of `generate_text`, but for rounding; result i is drawn by the seed `sampling.seed + i`. With
    `beams` nothing is drawn: the likeliest texts are searched for, best first, as many as `beams.num_results`, and
    of `sampling` only penalties, bans, lengths and stop texts count. `before` stands before every prompt. Raises as
    `stream_text` does, and ConfigError for what beams have not.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    sampling, options = sampling or SamplingConfig(), options or Options()
    for begin in range(0, len(prompts), batch_size):
        batch = _Batch(
            model, tokenizer, prompts[begin : begin + batch_size], sampling, num_results, options, before
        )
        if beams is None:
            for _ in batch.pieces():
                pass
            yield from batch.results()
        else:
            yield from batch.searched(beams)


@dataclass
class _Row:
    pieces: Pieces
    ids: list[int] = field(default_factory=list)
    logs: list[LogProbability] = field(default_factory=list)


class _Batch:
    """Prompts that are written together."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        sampling: SamplingConfig,
        num_results: int,
        options: Options | None,
        before: Sequence[int],
    ) -> None:
        if tokenizer.vocab_size > model.vocab_size:
            raise TokenizerError(
                f"the tokenizer ({tokenizer.kind}) has {tokenizer.vocab_size} ids and the model only "
                f"{model.vocab_size}; use the tokenizer that the model was trained with"
            )
        self._model, self._tokenizer, self._prompts, self._sampling = model, tokenizer, prompts, sampling
        self._num_results, self._options = num_results, options or Options()
        if before and not model.continues_prompt:
            raise ConfigError(
                "an encoder-decoder reads its prompt alone: nothing can stand before it; leave it out"
            )
        self._prompt_ids = [
            [*before, *start_ids(tokenizer, prompt, not model.continues_prompt, is_start=not before)]
            for prompt in prompts
        ]
        self._rows = [_Row(Pieces(tokenizer, sampling.stop)) for _ in range(len(prompts) * num_results)]
        self._seconds = 0.0

    def pieces(self) -> Iterator[tuple[int, str]]:
        """What can be shown of which row, as it comes."""
        self._writing = Writing(
            self._model,
            self._prompt_ids,
            self._sampling,
            num_results=self._num_results,
            vocab_size=self._tokenizer.vocab_size,
            end_id=self._tokenizer.end_of_text_id,
            options=self._options,
        )
        resumed = perf_counter()
        for chosen in self._writing.steps():
            self._seconds += perf_counter() - resumed
            for each in chosen:
                row = self._rows[each.row]
                if row.pieces.is_stopped:  # earlier in the same run of ids
                    continue
                row.ids.append(each.id)
                if each.log_probability is not None:
                    row.logs.append(each.log_probability)
                if each.id != self._tokenizer.end_of_text_id and (piece := row.pieces.push(each.id)):
                    yield each.row, piece
                if row.pieces.is_stopped:
                    self._writing.finish(each.row)
            resumed = perf_counter()
        for number, row in enumerate(self._rows):
            if rest := row.pieces.flush():
                yield number, rest

    def results(self) -> list[list[Generation]]:
        """Of each prompt, once all pieces have come."""
        made = [self._generation(number) for number in range(len(self._rows))]
        return [made[begin : begin + self._num_results] for begin in range(0, len(made), self._num_results)]

    def searched(self, beams: BeamConfig) -> list[list[Generation]]:
        """Of each prompt, the texts that beams find."""
        self._refuse_what_beams_have_not()
        device, vocab_size = self._model.device, self._tokenizer.vocab_size
        prompt, documents = decoding.pad_left([torch.tensor(ids, device=device) for ids in self._prompt_ids])
        end = self._tokenizer.end_of_text_id
        began = perf_counter()
        found = beam_search(
            self._model,
            prompt,
            self._sampling.max_new_tokens,
            beams,
            documents=documents if bool((documents < 0).any()) else None,
            end_id=end,
            steps=self._sampling.model_copy(update={"temperature": 0.0}).steps(vocab_size, end),
            dtype=self._options.cache_dtype,
            chunk=self._options.chunk,
        )
        self._seconds = perf_counter() - began
        self._rows = [self._row_of(beam.ids.tolist()) for results in found for beam in results]
        scores = [beam.score for results in found for beam in results]
        prompts = [(number, place) for number, results in enumerate(found) for place in range(len(results))]
        texts: list[list[Generation]] = [[] for _ in found]
        for row, ((number, place), score) in enumerate(zip(prompts, scores, strict=True)):
            texts[number].append(self._generation(row, prompt=number, result=place, score=score))
        return texts

    def _refuse_what_beams_have_not(self) -> None:
        if self._num_results > 1:
            raise ConfigError(
                f"num_results={self._num_results} counts texts that are drawn; of beams, set BeamConfig(num_results=…)"
            )
        if self._options.proposer is not None or self._options.alternatives is not None:
            raise ConfigError(
                "beams go with neither drafts (speculative decoding) nor log-probabilities of single ids; "
                "leave one of the two out"
            )
        longest, context = max(map(len, self._prompt_ids)), self._model.max_seq_len
        written = self._sampling.max_new_tokens + (longest if self._model.continues_prompt else 1)
        if self._options.when_full == "stop" and max(longest, written - 1) > context:
            raise ConfigError(
                f"beams do not stop at the end of the context ({context} tokens), which {longest} of the prompt and "
                f"{self._sampling.max_new_tokens} new ones would pass; ask for fewer, or let the context roll"
            )

    def _row_of(self, ids: list[int]) -> _Row:
        """A row whose ids are all there."""
        row = _Row(Pieces(self._tokenizer, self._sampling.stop))
        for each in ids:
            row.ids.append(each)
            if each != self._tokenizer.end_of_text_id:
                row.pieces.push(each)
            if row.pieces.is_stopped:
                break
        row.pieces.flush()
        return row

    def _generation(
        self, row: int, *, prompt: int | None = None, result: int | None = None, score: float | None = None
    ) -> Generation:
        prompt = row // self._num_results if prompt is None else prompt
        length = len(self._prompt_ids[prompt])
        written = self._rows[row]
        return Generation(
            prompt=self._prompts[prompt],
            text=written.pieces.text,
            ids=tuple(written.ids),
            prompt_tokens=length,
            prompt_tokens_read=decoding.tokens_read(length, self._model.max_seq_len),
            stop_reason=self._reason(row) if score is None else self._reason_of(written),
            tokens_per_second=sum(len(each.ids) for each in self._rows) / self._seconds,
            result=row % self._num_results if result is None else result,
            score=score,
            log_probabilities=None
            if self._options.alternatives is None or score is not None
            else tuple(written.logs),
            drafted=self._writing.drafted if score is None else 0,
            accepted=self._writing.accepted if score is None else 0,
        )

    def _reason(self, row: int) -> StopReason:
        return self._writing.reasons[row]

    def _reason_of(self, row: _Row) -> StopReason:
        """Of a text whose ids are all there."""
        if row.pieces.is_stopped:
            return "stop"
        return "end of text" if row.ids[-1] == self._tokenizer.end_of_text_id else "length"


def start_ids(tokenizer: Tokenizer, prompt: str, allow_special: bool, *, is_start: bool = True) -> list[int]:
    """The ids to continue: the prompt's, or for an empty prompt at the start those that a text begins after."""
    if prompt or not is_start:
        return tokenizer.encode(prompt, allow_special=allow_special).tolist()
    if tokenizer.end_of_text_id is not None:
        return [tokenizer.end_of_text_id]
    try:
        return tokenizer.encode("\n").tolist()
    except TokenizerError as error:
        raise TokenizerError(
            f"the prompt is empty, and the tokenizer ({tokenizer.kind}) has neither an end-of-text token nor "
            f"a newline to start from ({error}); give a prompt"
        ) from None


def printable(text: str) -> str:
    """The text with every control character but newline and tab as U+FFFD: safe to show on a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
