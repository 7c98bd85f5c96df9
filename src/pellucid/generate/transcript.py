"""What was said so far, so that the next prompt goes on from it."""

from __future__ import annotations

from pellucid.errors import TokenizerError
from pellucid.generate.text import Generation, start_ids
from pellucid.tokenizers.base import Tokenizer


class Transcript:
    """Prompts and the texts that a model which continues its prompt has written after them, as one growing text.

    It is kept as the ids that the model has seen, not as their text: other ids may spell the same text, and what was
    read of the old ones (see `Prefixes`) would have to be read again. Hand `ids` to `stream_text` as `before`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        try:
            tokenizer.encode("\n")
            self._between = "\n"
        except TokenizerError:  # the tokenizer has no newline
            self._between = ""

    def prompt(self, line: str) -> str:
        """What is to be read of a line that was typed: it begins a line of the text; an empty one lets it go on."""
        return self._between + line if self.ids and line else line

    def add(self, prompt: str, written: Generation) -> None:
        """Add a prompt and what was written after it; what only ended the text is left out."""
        if written.stop_reason == "stop":  # the ids have the stop text, or a part of what came after it
            self.add_text(prompt, written.text)
            return
        ended = written.stop_reason == "end of text"
        self._add_prompt(prompt)
        self.ids += written.ids[:-1] if ended else written.ids

    def add_text(self, prompt: str, text: str) -> None:
        """Add a prompt and a text of which only what was shown is known, such as one that was broken off."""
        self._add_prompt(prompt)
        self.ids += self._tokenizer.encode(text).tolist()

    def _add_prompt(self, prompt: str) -> None:
        self.ids += start_ids(self._tokenizer, prompt, False, is_start=not self.ids)
