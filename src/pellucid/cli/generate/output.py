"""Where texts go: they, or JSON, to standard output; what is said about them to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from rich.console import Console

from pellucid.cli.options import print_json
from pellucid.generate.sampling import LogProbability
from pellucid.generate.text import Generation, printable
from pellucid.tokenizers import Tokenizer


class Output:
    """Shows pieces of a text as they come, and then what is to be known of it.

    facts: what every JSON object has besides a text's own values.
    """

    def __init__(
        self, console: Console, tokenizer: Tokenizer, context: int, *, is_json: bool, facts: Mapping[str, Any]
    ) -> None:
        self._console, self._tokenizer, self._context = console, tokenizer, context
        self._is_json, self._facts = is_json, facts
        self._is_terminal = sys.stdout.isatty()
        self._is_inside_line = False
        self.text = ""
        """What has come of the text that is being written."""

    def begin(self, prompt: str = "") -> None:
        """A new text; a prompt is shown where the text continues it."""
        self.text = ""
        if not self._is_json:
            self._put(prompt)

    def piece(self, text: str) -> None:
        """More of the text."""
        self.text += text
        if not self._is_json:
            self._put(text)

    def break_off(self) -> None:
        """Nothing more comes of the text that is being written: what comes next begins a line."""
        if self._is_terminal or self._is_inside_line:
            self._put("\n")

    def end(self, written: Generation, *, seed: int, settings: Mapping[str, Any], about: str) -> None:
        """The text is whole, and all pieces have been shown. about: what may be longer than the context."""
        if self._is_json:
            self._print_json(written, seed, settings)
        else:
            self._put("\n")
        self.say_what_was_read(written, about)
        if not self._is_json:
            self._print_log_probabilities(written.log_probabilities or ())
            self._say(
                f"{written.new_tokens} tokens, {written.tokens_per_second:,.0f} tokens/s{_notes(written)}"
            )

    def show_all(
        self,
        results: Sequence[Generation],
        *,
        seed: int,
        settings: Mapping[str, Any],
        shows_prompt: bool,
        which: str = "",
    ) -> None:
        """The results of a prompt that were not shown piece by piece. which: the prompt, where there are several."""
        for result in results:
            if self._is_json:
                self._print_json(result, seed + result.result, settings)
                continue
            names = [which] if which else []
            if len(results) > 1:
                names.append(f"result {result.result + 1} of {len(results)}")
            if result.score is not None:
                names.append(f"score {result.score:.3f}")
            if names and self._is_terminal:
                self._say(f"── {', '.join(names)} ──")
            self._put((result.prompt if shows_prompt else "") + result.text + "\n")
            self._print_log_probabilities(result.log_probabilities or ())
            if notes := _notes(result):
                self._say(notes.removeprefix("; "))

    def say_what_was_read(self, written: Generation, about: str) -> None:
        if written.prompt_tokens_read < written.prompt_tokens:
            self._console.print(
                f"{about} {written.prompt_tokens} tokens and the context {self._context}: "
                f"only the last {written.prompt_tokens_read} were read",
                style="yellow",
            )

    def say_totals(self, results: Sequence[Generation], seconds: float | None = None) -> None:
        """Of several texts that were written together; seconds: from the first to the last, if in many batches."""
        tokens = sum(each.new_tokens for each in results)
        speed = results[0].tokens_per_second if seconds is None else tokens / seconds
        texts = f"{len(results)} texts, " if len(results) > 1 else ""
        if not self._is_json:
            self._say(f"{texts}{tokens} tokens, {speed:,.0f} tokens/s")

    def _print_json(self, written: Generation, seed: int, settings: Mapping[str, Any]) -> None:
        values = written.to_dict()
        if written.log_probabilities is not None:
            values["log_probabilities"] = [self._named(each) for each in written.log_probabilities]
        print_json({**values, "seed": seed, "settings": settings, **self._facts})

    def _named(self, each: LogProbability) -> dict[str, Any]:
        return {
            "id": each.id,
            "text": self._text_of(each.id),
            "log_probability": each.log_probability,
            "alternatives": [
                {"id": id_, "text": self._text_of(id_), "log_probability": value}
                for id_, value in each.alternatives
            ],
        }

    def _print_log_probabilities(self, logs: Sequence[LogProbability]) -> None:
        """A line an id: its text, how likely it was, and the likeliest in its place."""
        shown = [self._shown(each.id) for each in logs]
        width = max([len("token"), *map(len, shown)])
        if logs:
            others = "   likeliest here" if logs[0].alternatives else ""
            self._say(f"{'token':<{width}}     ln p       p{others}")
        for text, each in zip(shown, logs, strict=True):
            others = "".join(f"   {self._shown(id_)} {exp(log):.1%}" for id_, log in each.alternatives)
            own = each.log_probability
            self._say(f"{text:<{width}} {own:8.3f} {exp(own):7.1%}{others}")

    def _shown(self, number: int) -> str:
        return printable(json.dumps(self._text_of(number), ensure_ascii=False))

    def _text_of(self, number: int) -> str:
        """Of an id; a part of a character is U+FFFD."""
        return self._tokenizer.decode([number])

    def _put(self, text: str) -> None:
        if text:
            self._is_inside_line = not text.endswith("\n")
        sys.stdout.write(printable(text) if self._is_terminal else text)
        sys.stdout.flush()

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim")


def _notes(written: Generation) -> str:
    """What else is to be known of a text."""
    full = "; the context is full" if written.stop_reason == "context" else ""
    drafts = f"; {written.accepted} of {written.drafted} drafted tokens accepted" if written.drafted else ""
    return drafts + full
