"""Many prompts through one model: read together, written together, each as if it were alone.

It knows ids alone; text, and what ends it besides its end-of-text id, is `text.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.errors import ConfigError
from pellucid.generate.drafting import Proposer
from pellucid.generate.prefixes import Prefixes, has_beginnings, shared_beginning
from pellucid.generate.sampling import Chooser, LogProbability, SamplingConfig, log_probabilities
from pellucid.generate.speculative import Verified, speculate
from pellucid.generate.written import Written
from pellucid.model.cache import Prefix
from pellucid.model.decoding import Decoding, pad_left
from pellucid.model.inference import evaluation_mode
from pellucid.model.interface import LanguageModel

Ids = Sequence[int]

StopReason = Literal["end of text", "stop", "length", "context"]
"""Why a text ended: the model ended it, a stop text came, it has max_new_tokens ids, or the context is full."""

LEAST_SHARED = 16
"""A beginning that all prompts share is read once for all from so many ids on."""


@dataclass(frozen=True, eq=False)
class Options:
    """How text is written, apart from how ids are chosen. None of it but `when_full` changes more than rounding."""

    when_full: Literal["roll", "stop"] = "roll"
    """At the end of the context: its older half is forgotten and writing goes on, or the text ends."""
    chunk: int | None = None
    """How many columns of a prompt are read at once; None: see `Decoding`."""
    cache_dtype: torch.dtype | None = None
    """Of keys and values; None: what suits the weights."""
    alternatives: int | None = None
    """Log-probabilities of what is chosen, and of so many likeliest ids beside it; None: none."""
    prefixes: Prefixes | None = None
    """Where what has been read of earlier texts is kept, and found again."""
    proposer: Proposer | None = None
    """Who drafts ids, for one prompt at a time (speculative decoding)."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values that cannot be."""
        if self.when_full not in ("roll", "stop"):
            raise ConfigError(f"when_full must be 'roll' or 'stop', not {self.when_full!r}")
        for name, value, least in (("chunk", self.chunk, 1), ("alternatives", self.alternatives, 0)):
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least} or None, not {value}")


@dataclass(frozen=True)
class Chosen:
    """One new id of a row."""

    row: int
    id: int
    log_probability: LogProbability | None = None


class Writing:
    """A batch of prompts, each continued `num_results` times: row r is result r % num_results of its prompt.

    Result i of every prompt draws by the seed `sampling.seed + i`, so a text depends on its prompt, the settings and
    the seed, and but for rounding not on the batch. Of a decoder, equal ids at the beginning of all prompts are read
    once. `vocab_size`: the tokenizer's, beyond which no id is chosen. `reasons` says why rows have ended, as they do.

    Raises ConfigError for a prompt that is empty, has an id that the model has not, or is longer than a context
    that may not roll; and for options that exclude each other.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Ids],
        sampling: SamplingConfig,
        *,
        num_results: int = 1,
        vocab_size: int | None = None,
        end_id: int | None = None,
        options: Options | None = None,
    ) -> None:
        self._options = options or Options()
        self._model, self._prompts, self._sampling = model, prompts, sampling
        self._num_results, self._end_id, self._vocab_size = (
            num_results,
            end_id,
            vocab_size or model.vocab_size,
        )
        self._check()
        seeds = [sampling.seed + result for _ in prompts for result in range(num_results)]
        self._chooser = Chooser(sampling, seeds, vocab_size=self._vocab_size, end_id=end_id)
        self._living = list(range(len(seeds)))
        self.reasons: dict[int, StopReason] = {}
        self.drafted = self.accepted = 0

    def finish(self, row: int) -> None:
        """End a row: no more ids of it are wanted, and its newest ones may not be, whatever ended with them."""
        self.reasons[row] = "stop"

    def steps(self) -> Iterator[list[Chosen]]:
        """One new id of every living row at a time, or the ids that one call of a proposer's target gave."""
        return self._one_by_one() if self._options.proposer is None else self._in_runs(self._options.proposer)

    @torch.inference_mode()
    def _one_by_one(self) -> Iterator[list[Chosen]]:
        with evaluation_mode(self._model):
            rows = self._start()
            try:
                logits = rows.next_logits()
                self._each_prompt_several_times(rows)
                logits = logits.repeat_interleave(self._num_results, dim=0)
                for place in range(1, self._sampling.max_new_tokens + 1):
                    new = self._chooser.choose(logits, self._written(rows))
                    chosen = self._named(new, logits)
                    self._end(chosen, is_last=place == self._sampling.max_new_tokens)
                    yield chosen
                    new = new[self._drop_ended(rows)]
                    if not self._living:
                        return
                    rows.append(new)
                    if self._options.when_full == "stop":
                        self._end_full(rows)
                        self._drop_ended(rows)
                        if not self._living:
                            return
                    logits = rows.next_logits()
            finally:
                self._remember(rows)

    def _in_runs(self, proposer: Proposer) -> Iterator[list[Chosen]]:
        (prompt,) = self._prompts
        count, reason = self._sampling.max_new_tokens, "length"
        left = self._model.max_seq_len + 1 - (len(prompt) if self._model.continues_prompt else 1)
        if self._options.when_full == "stop" and left < count:
            count, reason = left, "context"
        runs = speculate(
            self._model,
            torch.tensor([prompt], device=self._model.device),
            count,
            proposer,
            self._chooser.probabilities,
            seed=self._sampling.seed,
            end_id=self._end_id,
            dtype=self._options.cache_dtype,
            chunk=self._options.chunk,
            known=self._known(),
            at_end=self._remember,
        )
        made = 0
        for run in runs:
            self._count(run)
            made += len(run.ids)
            if run.ids[-1] == self._end_id:
                self.reasons.setdefault(0, "end of text")
            elif made == count:
                self.reasons.setdefault(0, reason)
            yield [Chosen(0, each) for each in run.ids]
            if 0 in self.reasons:
                return

    def _check(self) -> None:
        if not self._prompts:
            raise ConfigError("there is no prompt; give at least one")
        if self._num_results < 1:
            raise ConfigError(f"the number of results must be at least 1, not {self._num_results}")
        one_row = len(self._prompts) * self._num_results == 1
        if self._options.proposer is not None and not (one_row and self._options.alternatives is None):
            raise ConfigError(
                "drafts (speculative decoding) are for one prompt, one result and no log-probabilities; "
                "leave the drafts out, or give each prompt alone"
            )
        context = self._model.max_seq_len
        for number, prompt in enumerate(self._prompts, start=1):
            which = f"prompt {number}" if len(self._prompts) > 1 else "the prompt"
            if not len(prompt):
                raise ConfigError(f"{which} is empty: a model needs at least one id to continue from")
            if max(prompt) >= self._model.vocab_size or min(prompt) < 0:
                wrong = max(prompt) if min(prompt) >= 0 else min(prompt)
                raise ConfigError(
                    f"{which} has the id {wrong}, and the model's ids go from 0 to {self._model.vocab_size - 1}; "
                    "use the tokenizer that the model was trained with"
                )
            if self._options.when_full == "stop" and len(prompt) > context:
                raise ConfigError(
                    f"{which} has {len(prompt)} tokens and the context only {context}; shorten it, or let the "
                    "context roll, which reads its newest part"
                )

    def _start(self) -> Decoding:
        device = self._model.device
        prompt, documents = pad_left([torch.tensor(ids, device=device) for ids in self._prompts])
        is_padded = bool((documents < 0).any())
        self._padded = documents if is_padded and self._model.continues_prompt else None
        return Decoding(
            self._model,
            prompt,
            self._sampling.max_new_tokens,
            documents=documents if is_padded else None,
            dtype=self._options.cache_dtype,
            chunk=self._options.chunk,
            known=self._known(),
        )

    def _known(self) -> Prefix | None:
        """What has been read, or is read here once, of what all prompts begin with."""
        longest = max(len(prompt) for prompt in self._prompts)
        if not has_beginnings(self._model) or longest > self._model.max_seq_len:
            return None
        first, shared = self._prompts[0], shared_beginning(self._prompts)
        store = self._options.prefixes
        found = store.find(first[: shared + 1]) if store is not None else None
        if len(self._prompts) == 1 or shared < LEAST_SHARED or (found is not None and found.length == shared):
            return found
        alone = Decoding(
            self._model,
            torch.tensor([first[:shared]], device=self._model.device),
            1,
            dtype=self._options.cache_dtype,
            chunk=self._options.chunk,
            known=found,
        )
        with torch.inference_mode():
            alone.next_logits()
        read = alone.cache.prefix(0, shared)
        if store is not None:
            store.add(first[:shared], read)
        return read

    def _remember(self, rows: Decoding) -> None:
        """Keep what was read of a single prompt and its text for the next that begins alike."""
        store, length = self._options.prefixes, rows.cache.length
        if store is None or len(self._prompts) > 1 or not length or not has_beginnings(self._model):
            return
        ids: list[int] = rows.ids[0].tolist()
        if len(ids) <= self._model.max_seq_len:  # else its beginning has been forgotten
            store.add(ids[:length], rows.cache.prefix(0, length))

    def _each_prompt_several_times(self, rows: Decoding) -> None:
        if self._num_results > 1:
            prompts = torch.arange(len(self._prompts)).repeat_interleave(self._num_results)
            rows.keep(prompts)
            self._padded = None if self._padded is None else self._padded[prompts]

    def _written(self, rows: Decoding) -> Written:
        num_new = torch.full((len(self._living),), rows.num_new, device=rows.ids.device)
        lengths = None if self._padded is None else (self._padded >= 0).sum(dim=1) + num_new
        return Written(rows.ids, lengths, num_new)

    def _named(self, new: Tensor, logits: Float[Tensor, "B V"]) -> list[Chosen]:
        ids: list[int] = new.tolist()
        if self._options.alternatives is None:
            return [Chosen(row, each) for row, each in zip(self._living, ids, strict=True)]
        logs = log_probabilities(logits[:, : self._vocab_size], new, self._options.alternatives)
        return [Chosen(row, log.id, log) for row, log in zip(self._living, logs, strict=True)]

    def _end(self, chosen: Sequence[Chosen], *, is_last: bool) -> None:
        for each in chosen:
            if each.id == self._end_id:
                self.reasons[each.row] = "end of text"
            elif is_last:
                self.reasons[each.row] = "length"

    def _end_full(self, rows: Decoding) -> None:
        for row, room in zip(self._living, rows.rooms, strict=True):
            if room < 0:
                self.reasons[row] = "context"

    def _drop_ended(self, rows: Decoding) -> list[int]:
        """The places of those that go on; the others leave the batch."""
        going = [place for place, row in enumerate(self._living) if row not in self.reasons]
        if 0 < len(going) < len(self._living):
            rows.keep(going)
            self._chooser.keep(going)
            self._padded = None if self._padded is None else self._padded[going]
        self._living = [self._living[place] for place in going]
        return going

    def _count(self, run: Verified) -> None:
        self.drafted += run.num_drafted
        self.accepted += run.num_accepted
