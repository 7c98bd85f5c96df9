"""Author: an opened model, and everything about how it is asked to write but the prompt and the settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from rich.console import Console

from pellucid import checkpoint
from pellucid.cli.generate.output import Output
from pellucid.cli.generate.settings import Settings
from pellucid.errors import CheckpointError, ConfigError, TokenizerError, UserError
from pellucid.experiments.quantising import quantising_cost
from pellucid.generate.beam import BeamConfig
from pellucid.generate.drafting import DraftModel, NgramLookup, Proposer
from pellucid.generate.engine import Options
from pellucid.generate.opening import Writer, open_writer
from pellucid.generate.prefixes import Prefixes
from pellucid.generate.sampling import SamplingConfig
from pellucid.generate.text import Generation, generate_text, generate_texts
from pellucid.model import Transformer
from pellucid.runtime.console import StatusLine
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.precision import PrecisionName
from pellucid.tokenizers import Tokenizer

PREFIX_BYTES = 512 * 2**20
"""Memory for what was read of a dialogue."""


@dataclass(frozen=True)
class Author:
    """Writes prompts as it was asked to."""

    path: Path
    writer: Writer
    options: Options
    beams: BeamConfig | None
    num_results: int

    @property
    def model(self) -> Transformer:
        return self.writer.loaded.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.writer.loaded.tokenizer

    @property
    def is_streaming(self) -> bool:
        """Whether text can be shown as it comes: there is one, and it does not change any more."""
        return self.num_results == 1 and self.beams is None

    def remembering(self) -> Self:
        """The same, which reads nothing twice of texts that begin alike."""
        return replace(self, options=replace(self.options, prefixes=Prefixes(PREFIX_BYTES)))

    def write(
        self,
        prompt: str,
        settings: Settings,
        output: Output,
        *,
        number: int = 0,
        before: Sequence[int] = (),
        shows_prompt: bool = False,
    ) -> list[Generation]:
        """The results of one prompt, shown as they come; `number` is added to the seed."""
        sampling = settings.sampling
        sampling = sampling.model_copy(update={"seed": sampling.seed + number})
        described = describe_settings(self, settings)
        about = "what was said so far has" if before else "the prompt has"
        shows_prompt = shows_prompt and self.model.continues_prompt
        if not self.is_streaming:
            output.begin()
            (results,) = self.write_all([prompt], sampling, batch_size=1, before=before)
            output.show_all(results, seed=sampling.seed, settings=described, shows_prompt=shows_prompt)
            output.say_what_was_read(results[0], about)
            output.say_totals(results)
            return results
        output.begin(prompt if shows_prompt else "")
        written = generate_text(
            self.model,
            self.tokenizer,
            prompt,
            sampling,
            on_text=output.piece,
            before=before,
            options=self.options,
        )
        output.end(written, seed=sampling.seed, settings=described, about=about)
        return [written]

    def write_all(
        self,
        prompts: Sequence[str],
        sampling: SamplingConfig,
        *,
        batch_size: int,
        before: Sequence[int] = (),
    ) -> Iterator[list[Generation]]:
        """The results of each prompt."""
        return generate_texts(
            self.model,
            self.tokenizer,
            prompts,
            sampling,
            num_results=self.num_results if self.beams is None else 1,
            beams=self.beams,
            batch_size=batch_size,
            before=before,
            options=self.options,
        )

    def check(self, prompt: str, *, where: str = "") -> None:
        """Refuse what cannot be read before any of it is shown. Raises TokenizerError and ConfigError."""
        try:
            ids = self.tokenizer.encode(prompt, allow_special=not self.model.continues_prompt)
        except TokenizerError as error:
            raise TokenizerError(f"{where}{error}") from None
        if self.options.when_full == "stop" and len(ids) > self.model.max_seq_len:
            raise ConfigError(
                f"{where or 'the prompt: '}{len(ids)} tokens, and the context has only {self.model.max_seq_len}; "
                "shorten it, or leave out --when-full stop to have its newest part read"
            )


def open_author(
    target: Path | None,
    console: Console,
    *,
    device: str | None,
    dtype: PrecisionName,
    quantize: Literal["q8", "q4"] | None,
    draft: str | None,
    logprobs: int | None,
    when_full: Literal["roll", "stop"],
    beams: BeamConfig | None,
    num_results: int,
) -> Author:
    """Open the model and who drafts for it, and say what was opened. Raises as `open_writer` does."""
    path, why = checkpoint.find_checkpoint(target)
    chosen = choose_device(device)
    writer = open_writer(path, chosen, dtype, quantize)
    console.print(f"{why}; device {chosen.type} ({chosen.reason}), {writer}", style="dim")
    if quantize is not None:
        console.print(_cost(path, writer, quantize, chosen, StatusLine(console)), style="dim")
    proposer = None if draft is None else _proposer(draft, writer, chosen, dtype, console)
    options = Options(when_full=when_full, alternatives=logprobs, proposer=proposer)
    return Author(path, writer, options, beams, num_results)


def _cost(path: Path, writer: Writer, form: Literal["q8", "q4"], device: Device, status: StatusLine) -> str:
    status.show(f"what {form} costs, which is measured once …")
    try:
        return f"{form} costs: {quantising_cost(path, writer, form, device)}"
    except UserError as error:
        return f"what {form} costs cannot be measured: {error}"
    finally:
        status.clear()


def _proposer(draft: str, writer: Writer, device: Device, dtype: PrecisionName, console: Console) -> Proposer:
    if draft == "ngram":
        return NgramLookup()
    path, why = checkpoint.find_checkpoint(Path(draft))
    drafter = open_writer(path, device, dtype)
    mine, theirs = writer.loaded, drafter.loaded
    if (mine.tokenizer.fingerprint, mine.model.vocab_size) != (
        theirs.tokenizer.fingerprint,
        theirs.model.vocab_size,
    ):
        raise CheckpointError(
            f"--draft {draft}: its ids are not the model's ({theirs.tokenizer.kind}, {theirs.model.vocab_size}; here "
            f"{mine.tokenizer.kind}, {mine.model.vocab_size}); give a model that was trained with the same tokenizer"
        )
    console.print(f"drafts by {why}, {drafter}", style="dim")
    return DraftModel(theirs.model)


def describe_settings(author: Author, settings: Settings) -> dict[str, object]:
    """What differs from plain drawing, or from plain beams, as JSON takes it; the seed is each text's own."""
    changed = settings.sampling.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    return changed if author.beams is None else {**author.beams.model_dump(mode="json"), **changed}
