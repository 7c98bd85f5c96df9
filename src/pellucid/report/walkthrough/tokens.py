"""The first step: text becomes ids."""

from __future__ import annotations

from pellucid.report.walkthrough.labels import SPACE
from pellucid.report.walkthrough.sources import file_of
from pellucid.report.walkthrough.subject import Subject
from pellucid.report.walkthrough.values import Section, Strip


def tokens_section(subject: Subject) -> Section:
    tokenizer = subject.tokenizer
    words = (
        f"A model reads no letters. The {tokenizer.kind} tokenizer cuts the text into tokens, each with a number "
        f"from 0 to {tokenizer.vocab_size - 1:,}; those numbers are all that the model gets to know of it."
    )
    if tokenizer.kind == "byte":
        words += " Here a token is a byte of UTF-8: a plain letter."
    if len(subject.towers) == 2:
        words += (
            " The encoder reads the source; the decoder reads the target so far, behind an id that says "
            f"'begin'. {subject.target_note}"
        )
    strips = [
        Strip(
            f"{tower.reads} ({SPACE} is a space)",
            tuple(
                (label, str(number)) for label, number in zip(tower.labels, tower.ids.tolist(), strict=True)
            ),
        )
        for tower in subject.towers
    ]
    return Section(
        "Text becomes ids",
        words,
        {tower.reads: {"ids": tower.ids.tolist(), "tokens": list(tower.labels)} for tower in subject.towers},
        tuple(strips),
        files=file_of(tokenizer),
    )
